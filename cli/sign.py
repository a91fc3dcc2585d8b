"""Defines the commands about content credentials of files: `sign` and `verify`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.errors import ImageError, ProvenanceError
from ..engine.system.changes import telling_changes
from ..runtime.outputs.credentials import Credentials, CredentialState, read_credentials
from ..runtime.outputs.picture_file import check_output, new_file, read_request
from ..runtime.outputs.places import check_kept
from ..runtime.outputs.provenance import Origin, PictureSigner
from .making import OverwriteOption
from .options import JsonOption
from .terminal import notes, print_json, screen

logger = logging.getLogger(__name__)

WORDS: Mapping[CredentialState, str] = {
    CredentialState.TRUSTED: "valid, signed by {signer} ({issuer}), whom a trusted authority vouches for",
    CredentialState.UNKNOWN_SIGNER: "valid, signed by {signer} ({issuer}), whom nobody vouches for here",
    CredentialState.TAMPERED: "tampered with or damaged: what was signed does not hold",
    CredentialState.NONE: "no content credentials",
}


def sign(
    file: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP that was made here.", show_default=False)],
    *,
    cert: Annotated[Path, typer.Option(help="Certificates in PEM, one's own first.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The private key, which nobody else may read.", show_default=False)],
    parent: Annotated[
        list[Path] | None, typer.Option(help="The picture that was edited; further references after it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where it goes. Default: FILE is replaced.")] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Sign a picture with content credentials: made by a model, or edited by one from --parent."""
    place = out or file
    if out is not None:
        check_output(out)
    check_kept([place], [one.absolute() for one in parent or ()], overwrite=overwrite)
    signer, data = PictureSigner.open(cert, key), _read(file)
    request = read_request(data)
    if read_credentials(data).state is not CredentialState.NONE:
        raise ProvenanceError(f"{file} has credentials, which a second signature would replace; sign what has none")
    if not request:
        logger.warning("%s does not say what made it; the signature will say that a model did", file)
    if request.get("reference") and not parent:
        raise ProvenanceError(f"{file} says that it is an edit; name the picture that was edited with --parent")
    if request and not request.get("reference") and parent:
        raise ProvenanceError(f"{file} says that it was made from text alone, so it has no --parent")
    edits = 1 + len(_chain(request))
    signed = signer.sign(data, Origin.of(request, parent or (), edits=edits))
    with telling_changes([place], notes.print), new_file(place) as written:
        written.write(signed)
    if json:
        print_json({"path": place, "signer": signer.name})
    else:
        screen.print(f"{place}  signed by {signer.name}")


def verify(
    file: Annotated[Path, typer.Argument(help="A picture.", show_default=False)],
    *,
    trust: Annotated[
        Path | None, typer.Option(help="Certificates in PEM of those who may vouch for a signer.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say whether a picture's content credentials hold. Exits with 1 if not, or if --trust vouches for nobody."""
    found = read_credentials(_read(file), trust=None if trust is None else _read(trust))
    if json:
        print_json({"file": file, **_described(found)})
    else:
        screen.print(f"{file}: {WORDS[found.state].format(signer=found.signer, issuer=found.issuer)}")
        for problem in found.problems if found.state is CredentialState.TAMPERED else ():
            notes.print(f"  {problem}")
        if found.state in (CredentialState.TRUSTED, CredentialState.UNKNOWN_SIGNER):
            for source in found.sources:
                screen.print(f"  {source}")
            screen.print(f"  made from {', '.join(found.ingredients) or 'nothing else'}")
            if found.generation:
                screen.print(f"  bundle {found.generation.get('bundle', 'unknown')}")
    good = (
        (CredentialState.TRUSTED,) if trust is not None else (CredentialState.TRUSTED, CredentialState.UNKNOWN_SIGNER)
    )
    if found.state not in good:
        raise typer.Exit(1)


def _described(found: Credentials) -> dict[str, Any]:
    return {
        "state": found.state.value,
        "problems": found.problems,
        "signer": found.signer,
        "issuer": found.issuer,
        "sources": found.sources,
        "ingredients": found.ingredients,
        "generation": found.generation,
    }


def _chain(request: Mapping[str, Any]) -> list[Any]:
    chain = request.get("chain")
    return chain if isinstance(chain, list) else []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error

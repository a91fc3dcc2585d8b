"""Signs pictures with content credentials (C2PA): what made them, and from which pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

from PIL import Image

from ...engine.errors import ImageError, ProvenanceError
from ...version import __version__
from ..inputs.pictures import Picture, read_picture
from ..inputs.references import Latents, ReferenceSource, each_source
from ..inputs.sources import is_encoded, read_encoded
from .credentials import LABEL, OFFLINE, CredentialState, import_c2pa, media_type_of, read_credentials
from .signing_key import SigningKey, read_signing_key

SIGNED = ("PNG", "JPEG", "WEBP")
"""The formats that are signed, by Pillow's names."""
_INGREDIENTS = ("image/png", "image/jpeg", "image/webp")
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = f"{_SOURCE}trainedAlgorithmicMedia"
"""The IPTC source type of what a model made from text alone."""
EDITED = f"{_SOURCE}compositeWithTrainedAlgorithmicMedia"
"""The IPTC source type of a picture that a model edited."""
RECORDED = ("bundle", "fused_loras", "loras")
"""The parts of a request that the assertion repeats, where a request has them: never a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Says where a picture comes from.

    Attributes:
        request: What made it, as `Result.request` says; see `RECORDED` for what the signature repeats.
        inputs: The encoded pictures that it was made from, what was edited first; none for a picture from text.
        edits: The number of edits that lie between the first of them and it.
    """

    request: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[bytes, ...] = field(default=(), repr=False)
    edits: int = 1

    @classmethod
    def of(cls, request: Mapping[str, Any], sources: Sequence[ReferenceSource], *, edits: int = 1) -> Origin:
        """Return the origin of a picture that was made from references, as a request has them.

        Files in PNG, JPEG and WebP keep their bytes, and with them credentials of their own.

        Raises:
            ImageError: A picture cannot be read.
            ProvenanceError: Latents came without their picture.
        """
        return cls(request=request, inputs=tuple(map(_encoded, sources)), edits=edits)


class PictureSigner:
    """Signs pictures with one key.

    Args:
        key: The certificates and the key.

    Raises:
        ProvenanceError: A picture cannot be signed with them; a tiny one is tried.
        MissingDependencyError: The library is not installed.
    """

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        file = io.BytesIO()
        Image.new("RGB", (1, 1)).save(file, format="PNG")
        self.sign(file.getvalue(), Origin())

    @classmethod
    def open(cls, certificates: Path | str, key: Path | str) -> PictureSigner:
        """Return a signer with certificates and a key from files; see `read_signing_key`.

        Raises:
            ProvenanceError: They cannot be read, do not fit each other, or must not sign.
            MissingDependencyError: The library is not installed.
        """
        return cls(read_signing_key(Path(certificates), Path(key)))

    @property
    def name(self) -> str:
        """The common name of the certificate."""
        return self._key.signer

    def sign(self, data: bytes, origin: Origin) -> bytes:
        """Return a picture's file with credentials, which were read back and hold. Its pixels stay as they are.

        Args:
            data: The file, in PNG, JPEG or WebP. Credentials that it has are replaced.
            origin: Where it comes from.

        Raises:
            ProvenanceError: It cannot be signed, or what was signed does not hold.
            ImageError: It is no picture.
        """
        c2pa = import_c2pa()
        media_type = media_type_of(data)
        if media_type not in _INGREDIENTS:
            raise ProvenanceError(f"pictures of type {media_type} are not signed; use PNG, JPEG or WebP")
        file = io.BytesIO()
        try:
            info = c2pa.C2paSignerInfo(self._key.algorithm, self._key.certificates, self._key.secret, None)
            with (
                c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}, "verify": OFFLINE}) as context,
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(_manifest(media_type, origin), context) as builder,
            ):
                _add_inputs(c2pa, builder, origin)
                builder.sign(signer, media_type, io.BytesIO(data), file)
        except c2pa.C2paError as error:
            raise ProvenanceError(f"the picture could not be signed: {error}") from error
        signed = file.getvalue()
        _check(signed, origin)
        return signed


class SignedKeywords(TypedDict, total=False):
    """Types the keywords that sign what is saved."""

    signer: PictureSigner | None
    inputs: ReferenceSource | Sequence[ReferenceSource] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Says who signs pictures, and what they were made from.

    Attributes:
        signer: Who signs.
        inputs: What they were made from, as the request had it, what was edited first; none for pictures from text.
        edits: The number of edits that lie between the first of them and the picture.
    """

    signer: PictureSigner
    inputs: tuple[ReferenceSource, ...] = field(default=(), repr=False)
    edits: int = 1

    @classmethod
    def of(cls, signed: SignedKeywords, begun: ReferenceSource, *, edits: int) -> Signing | None:
        """Return who signs a chain of edits, None if nobody does.

        Args:
            signed: The keywords.
            begun: What the chain began with, if the keywords do not say it.
            edits: The number of edits.
        """
        signer = signed.get("signer")
        if signer is None:
            return None
        given = signed.get("inputs")
        return cls(signer=signer, inputs=each_source(begun if given is None else given), edits=edits)

    def sign(self, data: bytes, request: Mapping[str, Any]) -> bytes:
        """Return a picture's file signed, with what made it. Raises as `PictureSigner.sign` and `Origin.of` do."""
        return self.signer.sign(data, Origin.of(request, self.inputs, edits=self.edits))


def check_signed_format(path: Path, file_format: str) -> None:
    """Raise ProvenanceError for a file whose format is not signed.

    Args:
        path: The file.
        file_format: Pillow's name of its format.
    """
    if file_format not in SIGNED:
        raise ProvenanceError(f"{path}: pictures in {file_format} are not signed; use .png, .jpg or .webp")


def _manifest(media_type: str, origin: Origin) -> dict[str, Any]:
    recorded = {name: origin.request[name] for name in RECORDED if name in origin.request}
    assertions: list[dict[str, Any]] = [{"label": LABEL, "data": {"version": __version__, **recorded}}]
    if origin.inputs:
        actions = [{"action": "c2pa.edited", "digitalSourceType": EDITED}] * origin.edits
        assertions.insert(0, {"label": "c2pa.actions.v2", "data": {"actions": actions}})
    return {
        "claim_generator_info": [{"name": "kontext-trt", "version": __version__}],
        "format": media_type,
        "assertions": assertions,
    }


def _add_inputs(c2pa: Any, builder: Any, origin: Origin) -> None:
    """Say what a picture was made from: by the intent, which adds the first action, and the ingredients."""
    if not origin.inputs:
        source = c2pa.C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA
        builder.set_intent(c2pa.C2paBuilderIntent.CREATE, source)
        return
    builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
    for number, data in enumerate(origin.inputs):
        described = {"title": f"reference {number}" if number else "input", "relationship": _relationship(number)}
        builder.add_ingredient(described, media_type_of(data), io.BytesIO(data))


def _relationship(number: int) -> str:
    return "componentOf" if number else "parentOf"


def _check(signed: bytes, origin: Origin) -> None:
    """Raise ProvenanceError unless what was signed says what it should, and holds."""
    found = read_credentials(signed)
    sources = (EDITED,) * origin.edits if origin.inputs else (GENERATED,)
    relationships = tuple(map(_relationship, range(len(origin.inputs))))
    if found.state not in (CredentialState.TRUSTED, CredentialState.UNKNOWN_SIGNER):
        raise ProvenanceError(f"what was signed does not hold ({', '.join(found.problems)}), and is not handed out")
    if (found.sources, found.ingredients) != (sources, relationships):
        raise ProvenanceError(
            f"what was signed says {found.sources} of {found.ingredients}, not {sources} of {relationships}; it is not "
            "handed out"
        )


def _encoded(source: ReferenceSource) -> bytes:
    """Return a reference's own file where it is of a format that may hold credentials, else its picture as PNG."""
    if isinstance(source, Latents):
        if source.image is None:
            raise ProvenanceError("these latents came without their picture, which a signature names; give the picture")
        source = source.image
    if is_encoded(source):
        data = read_encoded(source, "picture")
        try:
            if media_type_of(data) in _INGREDIENTS:
                return data
        except ImageError:
            pass  # what Pillow opens by another road is read below, or refused there in words
        source = data
    file = io.BytesIO()
    read_picture(cast(Picture, source)).save(file, format="PNG", compress_level=1)
    return file.getvalue()

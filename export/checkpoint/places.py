"""Says where the parts of a checkpoint lie: in paths and at places on the Hugging Face hub, as people name them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.bundle.file_kinds import refuse_other_kinds
from ...engine.errors import CheckpointError, OptionError
from ..configs import FOLDERS

_PLACE = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?(:(?P<file>[^:]+))?", re.ASCII)
_ADDRESS = re.compile(r"hf:/{1,2}|https?:/{1,2}", re.IGNORECASE)  # pathlib makes one slash of two
USUAL: Mapping[str, str] = {
    "transformer": "Comfy-Org/flux1-kontext-dev_ComfyUI:split_files/diffusion_models/"
    "flux1-dev-kontext_fp8_scaled.safetensors",
    "vae": "Comfy-Org/Lumina_Image_2.0_Repackaged:split_files/vae/ae.safetensors",
    "clip": "comfyanonymous/flux_text_encoders:clip_l.safetensors",
    "t5": "comfyanonymous/flux_text_encoders:t5xxl_fp16.safetensors",
}
"""The places that users of ComfyUI have each part from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPlace:
    """Names a model repository of the hub, "owner/name", or a file in it.

    Attributes:
        repo: The repository, "owner/name".
        revision: A branch, a tag or a commit; None for the main branch.
        file: A file's path in the repository, "" for the repository itself.
    """

    repo: str
    revision: str | None = None
    file: str = ""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}{f':{self.file}' if self.file else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """Says where each part lies, for checkpoints that are not one folder; what is None is looked for in those.

    Each is a path, or a place on the Hugging Face hub, `OWNER/NAME[@REVISION][:FILE]`, which is fetched.

    Attributes:
        transformer: The transformer: a file or a folder.
        vae: The autoencoder.
        clip: CLIP's text encoder.
        t5: T5's encoder.
        tokenizers: The folder of tokenizer/ and tokenizer_2/.
        variant: The variant of weights that is taken where a folder has it, such as "fp16".
        reference_weights: The transformer's weights before they were quantized to NVFP4, by which it is found how they
            lie in the file; without, it is found from the file alone, or the file is refused.
        trust_layout: How NVFP4 weights lie, taken untested: "swizzled-high" (BFL, ComfyUI), "linear-low" (ModelOpt,
            diffusers), "swizzled-low" or "linear-high".

    Raises:
        OptionError: A layout is trusted, and a reference is named that would tell it.
    """

    transformer: Path | str | None = None
    vae: Path | str | None = None
    clip: Path | str | None = None
    t5: Path | str | None = None
    tokenizers: Path | str | None = None
    variant: str | None = None
    reference_weights: Path | str | None = None
    trust_layout: str | None = None

    def __post_init__(self) -> None:
        if self.trust_layout is not None and self.reference_weights is not None:
            raise OptionError(
                "a layout is trusted or found by a reference: --trust-layout or --reference-weights, not both"
            )

    @property
    def named(self) -> Mapping[str, Path | str]:
        """The places that are named, by what lies there."""
        names = (*FOLDERS, "tokenizers", "reference_weights")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def parse_place(text: str) -> HubPlace | None:
    """Return the place that `OWNER/NAME[@REVISION][:FILE]`, a web address or hf:// name means; None for other texts.

    Raises:
        CheckpointError: It is an address of something else.
    """
    if scheme := _ADDRESS.match(text):
        return _address(text, f"{scheme[0].partition(':')[0].lower()}://{text[scheme.end() :]}")
    found = _PLACE.fullmatch(text)
    if found is None or ".." in (found["file"] or "").split("/"):
        return None
    return HubPlace(repo=found["repo"], revision=found["revision"], file=found["file"] or "")


def _address(text: str, address: str) -> HubPlace:
    from huggingface_hub import parse_hf_uri

    try:
        found = parse_hf_uri(address)
    except ValueError as error:  # of the hub's own grammar
        raise CheckpointError(f"{text} is no address of a model on the hub: {error}") from error
    if found.type != "model" or ".." in found.path_in_repo.split("/"):
        raise CheckpointError(f"{text} is the address of a {found.type} on the hub; a checkpoint is a model")
    return HubPlace(repo=found.id, revision=found.revision, file=found.path_in_repo)


def place_of(value: Path | str, what: str) -> HubPlace | None:
    """Return the place on the hub that a value names, None for a path; raise CheckpointError if it is neither."""
    if Path(value).exists():
        return None
    place = parse_place(str(value))
    if place is None:
        raise CheckpointError(f"{what} does not exist; on the hub it would be named OWNER/NAME or OWNER/NAME:FILE")
    return place


def check_places(checkpoint: Path | str, files: CheckpointFiles) -> None:
    """Refuse a checkpoint whose parts are not where they are said to be; the hub is not asked.

    Raises:
        CheckpointError: A name is neither a path nor a place on the hub, or is a file of a kind that is not read.
    """
    named = {f"checkpoint {checkpoint}": checkpoint, **{str(value): value for value in files.named.values()}}
    for what, value in named.items():
        if place_of(value, what) is None and Path(value).is_file():
            refuse_other_kinds(Path(value))


def usual_places(parts: Iterable[str]) -> str:
    """Return the options that take missing parts from where they usually come from."""
    return " ".join(f"--{part} {USUAL[part]}" for part in parts)

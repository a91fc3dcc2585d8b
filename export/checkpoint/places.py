"""Reads how people name places on the Hugging Face hub, and says where the parts of a checkpoint usually come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...engine.errors import CheckpointError

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


def usual_places(parts: Iterable[str]) -> str:
    """Return the options that take missing parts from where they usually come from."""
    return " ".join(f"--{part} {USUAL[part]}" for part in parts)

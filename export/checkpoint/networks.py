"""Finds a network among the tensors of a file: by a tensor that only it has, and the prefix before that name.

Whole checkpoints in one file have a prefix per network (`model.diffusion_model.`, `vae.`,
`text_encoders.t5xxl.transformer.`), training tools and compilers leave prefixes of theirs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ...engine.errors import CheckpointError
from .file_contents import Contents
from .layers import MARKER
from .views import TensorView

logger = logging.getLogger(__name__)

ANCHORS: Mapping[str, tuple[str, ...]] = {
    "transformer": ("img_in.weight", "x_embedder.weight"),
    "vae": ("encoder.conv_in.weight",),
    "clip": ("embeddings.token_embedding.weight",),
    "t5": ("shared.weight", "encoder.embed_tokens.weight"),
}
"""The tensors that every file of a network has one of, by its part of a checkpoint; the first that is there counts."""
OTHERS = "they are of other networks"
COMPILED = "_orig_mod."
"""The prefix that torch.compile gives to the names of what it has compiled, wherever that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Says which tensors no graph needs.

    Attributes:
        pattern: Matches their names, from any full stop on.
        reason: What they are.
        part: The part that this is about, "" for all.
        told: Whether the user is told without asking.
    """

    pattern: str
    reason: str
    part: str = ""
    told: bool = False


LEFT_OUT = (
    LeftOut(pattern=r"model_ema\..+", reason="weights that were averaged in training", told=True),
    LeftOut(pattern=r"logit_scale", reason="a constant of CLIP's training"),
    LeftOut(
        pattern=r"vision_model\..+|visual_projection\.weight", reason="CLIP's vision tower", part="clip", told=True
    ),
    LeftOut(pattern=r"text_projection(\.weight)?", reason="CLIP's projection, which FLUX.1 does not use", part="clip"),
    LeftOut(pattern=r"embeddings\.position_ids", reason="a constant of CLIP's text encoder", part="clip"),
    LeftOut(pattern=r"decoder\..+|lm_head\.weight", reason="T5's decoder", part="t5", told=True),
    LeftOut(pattern=r"spiece_model", reason="ComfyUI's copy of T5's tokenizer", part="t5"),
)
"""The tensors that are left out, each with its reason; what is neither here nor a network's is refused."""


def prefixes(names: Iterable[str], part: str) -> tuple[str, ...]:
    """Return the prefixes under which a part's network is among tensors, "" for names without one."""
    names = tuple(names)
    for anchor in ANCHORS[part]:
        found = {
            name.removesuffix(anchor)
            for name in names
            if name.endswith(anchor) and (name == anchor or name[-len(anchor) - 1] == ".")
        }
        wanted = tuple(sorted(prefix for prefix in found if not _reason(f"{prefix}{anchor}", ())))
        if part == "t5":  # its decoder has an embedding, too
            wanted = tuple(prefix for prefix in wanted if not prefix.endswith("decoder."))
        if wanted:
            return wanted
    return ()


def parts_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the parts of a checkpoint whose networks are among tensors."""
    names = tuple(names)
    return tuple(part for part in ANCHORS if prefixes(names, part))


def network_tensors(contents: Contents, part: str) -> Contents | None:
    """Return the tensors of a part's network without their prefix, None if it is not there; tell what is left out.

    Raises:
        CheckpointError: The network is there twice, or there are tensors of no network.
    """
    contents = _uncompiled(contents)
    found = prefixes(contents.tensors, part)
    if not found:
        return None
    prefix, *several = found
    if several:
        raise CheckpointError(
            f"{contents.source} has several networks for one part, under {' and '.join(repr(one) for one in found)}; "
            "save the one to use in a file of its own"
        )
    others = [one for other in ANCHORS if other != part for one in prefixes(contents.tensors, other)]
    kept: dict[str, TensorView] = {}
    left: dict[str, list[str]] = {}
    for name, view in contents.tensors.items():
        owner = max((one for one in (prefix, *others) if name.startswith(one)), key=len, default=None)
        reason = _reason(name, (part,) if owner == prefix else () if owner is not None else tuple(ANCHORS))
        if reason or (owner is not None and owner != prefix):
            left.setdefault(reason or OTHERS, []).append(name)
        elif owner == prefix:
            kept[name.removeprefix(prefix)] = view
        elif name.endswith(MARKER) and prefix.startswith(name.removesuffix(MARKER)):
            kept[MARKER] = view
        else:
            kept[name] = view  # the check against the network names it
    _tell(contents.source, left)
    return replace(contents, tensors=kept)


def _uncompiled(contents: Contents) -> Contents:
    tensors: dict[str, TensorView] = {}
    for name, view in contents.tensors.items():
        plain = name.replace(COMPILED, "")
        if plain in tensors:
            raise CheckpointError(f"{contents.source} has the tensor {plain} twice, once as {COMPILED}…")
        tensors[plain] = view
    return replace(contents, tensors=tensors)


def _reason(name: str, parts: tuple[str, ...]) -> str:
    """Return why a tensor is left out that may be one of these parts', "" if it is not."""
    for one in LEFT_OUT:
        if one.part in ("", *parts) and re.search(rf"(^|\.)({one.pattern})$", name):
            return one.reason
    return ""


def _tell(source: str, left: Mapping[str, list[str]]) -> None:
    told = {one.reason for one in LEFT_OUT if one.told}
    for reason, names in left.items():
        level = logging.WARNING if reason in told else logging.INFO
        count, which = ("1 tensor is", names[0]) if len(names) == 1 else (f"{len(names)} tensors are", f"{names[0]}…")
        logger.log(level, "%s: %s left out, %s: %s", source, count, reason, which)

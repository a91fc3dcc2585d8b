"""Chooses as what a turn takes the result that it edits: as latents, or as its picture and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.sizes import Size, check_size, size_text
from .inputs.masking import MaskCrop
from .inputs.references import Latents, ReferenceMethod, ReferenceSource, each_source
from .turn import Carry, Turn


def carried(turn: Turn, carry: Carry, asked: Mapping[str, Any], beside: Sequence[object]) -> tuple[Latents | None, str]:
    """Return the latents that the next turn edits; None if it edits the picture, and the reason if there is one.

    Args:
        turn: The turn whose result is edited.
        carry: As what it is to be carried.
        asked: The keywords of the next turn.
        beside: Its further references.

    Raises:
        RequestError: The size that is asked for is none.
    """
    if carry is Carry.PIXELS:
        return None, ""
    latents = turn.as_reference()
    if latents is None:
        return None, "the result before has no latents of its picture's size"
    reason = _needs_pixels(asked, latents.size, stitched=bool(beside))
    return (None, reason) if reason else (latents, "")


def further(sources: Any) -> tuple[ReferenceSource, ...]:
    """Return further references in a tuple: one alone may come without a list. Raises what `each_source` does."""
    return () if isinstance(sources, (list, tuple)) and not sources else each_source(sources)


def _needs_pixels(asked: Mapping[str, Any], size: Size, *, stitched: bool) -> str:
    """Return why what is asked of a turn takes a picture, "" if it does not."""
    wanted = None if asked.get("size") is None else check_size(asked["size"])
    if wanted is not None and wanted != size:
        return f"{size_text(wanted)} is asked for, and its latents are of {size_text(size)}"
    if "fit" in asked:
        return "a fit is asked for, which is about pictures"
    if stitched and asked.get("references") == ReferenceMethod.STITCH:
        return "references are stitched as pictures"
    if MaskCrop.MASK in (asked.get("crop"), getattr(asked.get("mask"), "crop", None)):
        return "a crop of it is edited"
    return ""

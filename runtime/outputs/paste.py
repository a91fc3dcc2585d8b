"""Puts an edited picture back into the one that it came from, so that what is not marked keeps its bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.errors import RequestError
from ..inputs.masking import PreparedMask
from ..inputs.placed_masks import bounds
from ..inputs.placement import Box, FractionalBox, Placement


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paste:
    """Holds what it takes to put edits of a picture back into it.

    Attributes:
        original: The picture, (H, W, 3) uint8.
        alpha: How much of an edit is taken per pixel, (H, W) uint8: 0 keeps the original, 255 takes the edit.
        placement: What was done to the part of the picture that was edited.
        box: That part of the picture, in pixels; None for all of it.
    """

    original: NDArray[np.uint8] = field(repr=False)
    alpha: NDArray[np.uint8] = field(repr=False)
    placement: Placement
    box: Box | None = None

    def __post_init__(self) -> None:
        height, width = self.alpha.shape
        left, top, right, bottom = self.box or (0, 0, width, height)
        assert self.original.shape == (height, width, 3)
        assert self.placement.original == (right - left, bottom - top)

    def apply(self, edited: Image.Image) -> Image.Image:
        """Return the original with an edit in it.

        The edit is brought to the pixels that it came from by LANCZOS, and not resampled where their sizes agree. Where
        alpha is 0 the bytes are the original's, where it is 255 the edit's. Pixels that the fit cut away, or kept in
        part alone, are the original's, too.

        Args:
            edited: A picture in mode RGB, of the size that the original was brought to.

        Raises:
            RequestError: The edit is of another size.
        """
        size = self.placement.size
        if edited.size != size:
            raise RequestError(
                f"the edit is {edited.width}x{edited.height}, and the picture was brought to {size[0]}x{size[1]}: "
                "it can be put back only at that size, so leave size out"
            )
        pasted = self.original.copy()
        x, y = (0, 0) if self.box is None else self.box[:2]
        left, top, right, bottom = self.placement.kept_pixels
        into = np.s_[y + top : y + bottom, x + left : x + right]
        alpha = self.alpha[into]
        if alpha.any():
            marked = bounds(alpha > 0)
            change = self._brought_back(edited, marked)
            part = np.s_[marked[1] : marked[3], marked[0] : marked[2]]
            pasted[into][part] = _blended(pasted[into][part], change, alpha[part])
        return Image.fromarray(pasted)

    def _brought_back(self, edited: Image.Image, part: Box) -> NDArray[np.uint8]:
        """Return the pixels of the edit for a part of the pixels that were kept."""
        left, top, right, bottom = part
        kept, pixels, filled = self.placement.kept, self.placement.kept_pixels, self.placement.filled
        source = _mapped((pixels[0] + left, pixels[1] + top, pixels[0] + right, pixels[1] + bottom), kept, filled)
        whole: Box = (round(source[0]), round(source[1]), round(source[2]), round(source[3]))
        size = right - left, bottom - top
        if (whole[2] - whole[0], whole[3] - whole[1]) == size and np.allclose(whole, source, rtol=0, atol=1e-6):
            return np.asarray(edited.crop(whole))
        return np.asarray(edited.resize(size, Image.Resampling.LANCZOS, box=source))


def finished(picture: NDArray[np.uint8], mask: PreparedMask | None) -> Image.Image:
    """Return a picture that was decoded: as it is, or what a mask lets through of it, on the picture that it is of."""
    made = Image.fromarray(picture)
    if mask is None:
        return made
    return Paste(original=mask.original, alpha=mask.alpha, placement=mask.placement, box=mask.box).apply(made)


def _mapped(box: Box, kept: FractionalBox, filled: Box) -> FractionalBox:
    """Return where a box of the original lies in the edit, which has `kept` at `filled`; never beyond."""
    sides: list[float] = []
    for index, side in enumerate(box):
        axis = index % 2
        scale = (filled[axis + 2] - filled[axis]) / (kept[axis + 2] - kept[axis])
        place = filled[axis] + (side - kept[axis]) * scale
        sides.append(min(max(place, filled[axis]), filled[axis + 2]))
    return sides[0], sides[1], sides[2], sides[3]


def _blended(original: NDArray[np.uint8], edited: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mix in whole numbers, rounded: alphas of 0 and 255 give one of the two as it is."""
    weight = alpha[..., None].astype(np.uint32)
    return ((edited * weight + original * (255 - weight) + 127) // 255).astype(np.uint8)

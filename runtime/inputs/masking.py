"""Makes a mask ready: what of a picture is edited, at which size, what is kept, and where the edit is pasted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.bundle.manifest import ModelRecord
from ...engine.errors import RequestError
from ...engine.sizes import token_grid
from .choices import parse_choice
from .crops import check_margin, crop_box
from .feather import check_radius, feather
from .masks import MaskSource, check_mask, read_mask
from .pictures import Picture, read_picture
from .placed_masks import check_kept, latent_keep, place_mask, whole_latents
from .placement import Box, Fit, Placement, nearest_size, place
from .references import Latents, Reference, ReferenceSource

FEATHER = 16
"""The pixels over which an edit fades in, inside the mask, if nobody says otherwise."""


class MaskCrop(str, Enum):
    """Says what of a picture with a mask is edited.

    Attributes:
        NONE: All of it, brought to a trained size.
        MASK: The surroundings of what is marked, at the picture's own resolution where they fit a trained size.
    """

    NONE = "none"
    MASK = "mask"


class MaskKeywords(TypedDict, total=False):
    """Types the keywords of `Masking` beside its mask, for `Kontext.edit`, which passes them on."""

    crop: MaskCrop | str
    feather: int
    margin: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masking:
    """Says what of a picture is edited. Outside it the result has the picture's own bytes.

    Attributes:
        mask: A picture of the edited one's size whose white is edited, or if it has transparency whose transparent part
            is; an array (h, w) bool; or boxes (left, top, right, bottom) in pixels.
        crop: Whether all of the picture is edited ("none"), or the surroundings of what is marked ("mask").
        feather: The pixels over which the edit fades in, inside what is marked, 0 to 128.
        margin: The pixels around what is marked that a crop shows at least; None takes a quarter of its longer side,
            and 32 at least.

    Raises:
        RequestError: The mask is of another type, or a number is out of range.
    """

    mask: MaskSource
    crop: MaskCrop | str = MaskCrop.NONE
    feather: int = FEATHER
    margin: int | None = None

    @classmethod
    def of(cls, mask: Masking | MaskSource | None, details: Mapping[str, Any]) -> Masking:
        """Return a mask with details that were given beside it.

        Raises:
            RequestError: There is no mask that they could be about, or it has details of its own.
        """
        if mask is None or isinstance(mask, Masking):
            found = "no mask" if mask is None else "a Masking, which says them itself"
            raise RequestError(f"{' and '.join(details)} say how a mask is used, and there is {found}")
        return cls(mask=mask, **details)

    def __post_init__(self) -> None:
        check_mask(self.mask)
        object.__setattr__(self, "crop", parse_choice(MaskCrop, "crop", self.crop))
        object.__setattr__(self, "feather", check_radius(self.feather))
        if self.margin is not None:
            object.__setattr__(self, "margin", check_margin(self.margin))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedMask:
    """Holds what a mask makes of a request.

    Attributes:
        keep: (n, channels) float32, 1 where latents stay the reference's.
        original: The picture (H, W, 3) uint8 that the edit is pasted on.
        alpha: How much the edit counts (H, W) uint8, 0 outside the mask.
        box: The part of the picture that is edited, (left, top, right, bottom) in pixels.
        placement: How that part was brought to the size that it is edited at.
        share: The share of the picture that is marked, 0 to 1.
        feather: The pixels over which the edit fades in.
    """

    keep: NDArray[np.float32]
    original: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    box: Box
    placement: Placement
    share: float
    feather: int

    def describe(self) -> str:
        """Say what is edited in words."""
        height, width = self.alpha.shape
        left, top, right, bottom = self.box
        words = f"{100 * self.share:.1f} % of {width}x{height}"
        if self.box != (0, 0, width, height):
            words += f", in a crop of {right - left}x{bottom - top} at {left},{top}"
        return f"{words}, feather {self.feather}"


def prepare_mask(
    source: ReferenceSource, masking: Masking, fit: Fit, model: ModelRecord
) -> tuple[PreparedMask, Reference]:
    """Read the picture that is edited and its mask, and return what is kept of it, and the reference that it becomes.

    Raises:
        ImageError: The picture or the mask cannot be read.
        RequestError: They do not fit each other, nothing is marked, or `fit` cuts away what is marked.
    """
    picture = _picture(source)
    mask = read_mask(masking.mask, picture.size)
    whole = (0, 0, *picture.size)
    box = whole if masking.crop is MaskCrop.NONE else crop_box(mask, model.sizes, masking.margin)
    if isinstance(source, Latents) and box == whole:
        reference = Reference.carried(source, model.dims.channels)
    else:
        cropped = picture.crop(box)
        placed, placement = place(cropped, nearest_size(cropped.size, model.sizes), fit)
        reference = Reference(pixels=np.asarray(placed), placement=placement)
    left, top, right, bottom = box
    part = mask[top:bottom, left:right]
    check_kept(part, reference.placement)
    edited = whole_latents(place_mask(part, reference.placement))
    prepared = PreparedMask(
        keep=latent_keep(edited, token_grid(reference.placement.size), model.dims.channels),
        original=np.asarray(picture),
        alpha=feather(mask, masking.feather),
        box=box,
        placement=reference.placement,
        share=float(mask.mean()),
        feather=masking.feather,
    )
    return prepared, reference


def _picture(source: ReferenceSource) -> Image.Image:
    """Return the picture that is pasted on. Raises RequestError for latents that came without theirs."""
    if not isinstance(source, Latents):
        return read_picture(cast(Picture, source))
    if source.image is None:
        raise RequestError("a mask pastes an edit on a picture, and these latents came without theirs")
    return source.image

"""Chooses the size that a picture is edited at, and brings the reference to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image, ImageOps

from ...engine.sizes import Size
from .choices import parse_choice

Box = tuple[int, int, int, int]
"""The (left, top, right, bottom) of a part of a picture, in pixels, half-open."""
FractionalBox = tuple[float, float, float, float]
"""A `Box` whose sides may run through pixels."""

_ROUNDING = 1e-6
"""A part of a pixel that is float64's rounding, and no part that was cut."""


class Fit(str, Enum):
    """Says how a reference of another shape is brought to its size.

    Attributes:
        RESIZE: Stretches it, as both reference implementations do.
        PAD: Keeps its shape and repeats its edge around it.
        CROP: Keeps its shape and cuts what stands over, evenly on both sides.
    """

    RESIZE = "resize"
    PAD = "pad"
    CROP = "crop"


def parse_fit(fit: Fit | str) -> Fit:
    """Return the fit that "resize", "pad" or "crop" stands for. Raises RequestError for another word."""
    return parse_choice(Fit, "fit", fit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Says what was done to a reference.

    Attributes:
        original: The (width, height) of the upright picture, in pixels.
        size: The (width, height) that it was brought to, in pixels.
        fit: How it was brought there.
        stretch: The change of its aspect ratio as a factor >= 1 (1 = none).
        cropped: The number of its pixels that were cut away.
        carried: Whether it came as latents of an earlier result, at its size.
    """

    original: Size
    size: Size
    fit: Fit
    stretch: float = 1.0
    cropped: int = 0
    carried: bool = False

    @property
    def kept(self) -> FractionalBox:
        """The part of the original that is seen: all of it, unless `fit` cuts."""
        if self.fit is Fit.CROP:
            return kept_box(self.original, self.size)
        return 0.0, 0.0, float(self.original[0]), float(self.original[1])

    @property
    def kept_pixels(self) -> Box:
        """The pixels of the original that are seen whole; right is left, or bottom top, if there are none."""
        left, top, right, bottom = self.kept
        first = math.ceil(left - _ROUNDING), math.ceil(top - _ROUNDING)
        last = math.floor(right + _ROUNDING), math.floor(bottom + _ROUNDING)
        return first[0], first[1], max(first[0], last[0]), max(first[1], last[1])

    @property
    def filled(self) -> Box:
        """The part of the size that the original fills: all of it, unless `fit` pads."""
        if self.fit is not Fit.PAD:
            return 0, 0, self.size[0], self.size[1]
        scale = min(self.size[0] / self.original[0], self.size[1] / self.original[1])
        width, height = (
            max(1, min(full, round(side * scale))) for side, full in zip(self.original, self.size, strict=True)
        )
        left, top = (self.size[0] - width) // 2, (self.size[1] - height) // 2
        return left, top, left + width, top + height

    def describe(self) -> str:
        if self.carried:
            return f"{self.size[0]}x{self.size[1]}, latents of an earlier result"
        words = f"{self.original[0]}x{self.original[1]} -> {self.size[0]}x{self.size[1]} ({self.fit.value})"
        if self.stretch > 1.005:
            words += f", stretched by {100 * (self.stretch - 1):.0f} %"
        if self.cropped:
            words += f", {100 * self.cropped / (self.original[0] * self.original[1]):.0f} % cut away"
        return words


def nearest_size(original: Size, sizes: Sequence[Size]) -> Size:
    """Return the trained size whose aspect ratio is nearest; ties go to the narrower.

    Source: BFL `kontext_model.py`, diffusers.

    Args:
        original: The (width, height) of a picture, in pixels.
        sizes: The trained sizes, each (width, height) in pixels.
    """
    aspect = original[0] / original[1]
    return min((abs(aspect - width / height), width, height) for width, height in sizes)[1:]


def kept_box(original: Size, size: Size) -> FractionalBox:
    """Return the part of a picture that "crop" brings to a size, in the picture's pixels.

    Source: Pillow's `ImageOps.fit`, which resamples from a box that it does not round.

    Args:
        original: The (width, height) of the picture, in pixels.
        size: The (width, height) that it is brought to, in pixels.
    """
    aspect = size[0] / size[1]
    width, height = float(original[0]), float(original[1])
    if original[0] / original[1] > aspect:
        width = aspect * original[1]
    elif original[0] / original[1] < aspect:
        height = original[0] / aspect
    left, top = (original[0] - width) * 0.5, (original[1] - height) * 0.5
    return left, top, left + width, top + height


def place(image: Image.Image, size: Size, fit: Fit) -> tuple[Image.Image, Placement]:
    """Bring an RGB picture to a size with LANCZOS. A picture that has it already is returned as it is.

    Args:
        image: A picture in mode RGB.
        size: The (width, height) to bring it to, in pixels.
        fit: What becomes of a picture of another aspect ratio.

    Returns:
        The picture of that size, and what was done to it.
    """
    original = image.size
    if original == size:
        return image, Placement(original=original, size=size, fit=fit)
    if fit is Fit.PAD:
        placement = Placement(original=original, size=size, fit=fit)
        left, top, right, bottom = placement.filled
        inner = image.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        borders = ((top, size[1] - bottom), (left, size[0] - right), (0, 0))
        return Image.fromarray(np.pad(np.asarray(inner), borders, mode="edge")), placement
    if fit is Fit.CROP:
        scale = max(size[0] / original[0], size[1] / original[1])
        kept = round(size[0] / scale) * round(size[1] / scale)
        cropped = max(original[0] * original[1] - kept, 0)
        fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        return fitted, Placement(original=original, size=size, fit=fit, cropped=cropped)
    ratio = (size[0] / size[1]) / (original[0] / original[1])
    stretched = image.resize(size, Image.Resampling.LANCZOS)
    return stretched, Placement(original=original, size=size, fit=fit, stretch=max(ratio, 1 / ratio))

"""Chooses the size that a picture is edited at, and brings the reference to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from PIL import Image, ImageOps

from ...engine.sizes import Size
from .choices import parse_choice


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
    """

    original: Size
    size: Size
    fit: Fit
    stretch: float = 1.0
    cropped: int = 0

    def describe(self) -> str:
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
        scale = min(size[0] / original[0], size[1] / original[1])
        fitted = tuple(max(1, min(full, round(side * scale))) for side, full in zip(original, size, strict=True))
        inner = image.resize((fitted[0], fitted[1]), Image.Resampling.LANCZOS)
        left, top = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
        borders = ((top, size[1] - inner.height - top), (left, size[0] - inner.width - left), (0, 0))
        padded = Image.fromarray(np.pad(np.asarray(inner), borders, mode="edge"))
        return padded, Placement(original=original, size=size, fit=fit)
    if fit is Fit.CROP:
        scale = max(size[0] / original[0], size[1] / original[1])
        kept = round(size[0] / scale) * round(size[1] / scale)
        cropped = max(original[0] * original[1] - kept, 0)
        fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        return fitted, Placement(original=original, size=size, fit=fit, cropped=cropped)
    ratio = (size[0] / size[1]) / (original[0] / original[1])
    stretched = image.resize(size, Image.Resampling.LANCZOS)
    return stretched, Placement(original=original, size=size, fit=fit, stretch=max(ratio, 1 / ratio))

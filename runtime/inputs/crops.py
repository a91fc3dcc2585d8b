"""Chooses the part of a picture that is edited by itself, around what a mask marks."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.components import PIXELS_PER_TOKEN
from ...engine.errors import RequestError
from ...engine.sizes import Size
from .placed_masks import bounds
from .placement import Box

MIN_MARGIN = 32
"""The least margin in pixels that is left around a mask unless it is named: two tokens."""


def usual_margin(marked: Box) -> int:
    """Return the margin in pixels around what is marked: a quarter of its longer side, 32 at least.

    The model needs surroundings to fit an edit into.
    """
    left, top, right, bottom = marked
    return max(MIN_MARGIN, math.ceil(max(right - left, bottom - top) / 4))


def check_margin(margin: Any) -> int:
    """Return a margin in pixels. Raises RequestError unless it is a whole number from 0 on."""
    if not isinstance(margin, numbers.Integral) or isinstance(margin, bool) or margin < 0:
        raise RequestError(f"the margin around a mask must be a whole number of pixels from 0 on, not {margin!r}")
    return int(margin)


def crop_box(mask: NDArray[np.bool_], sizes: Sequence[Size], margin: int | None = None) -> Box:
    """Return the part of a picture to edit by itself: what is marked, with a margin, in the shape of a trained size.

    Of the trained shapes that hold it and lie within the picture, the scale nearest to 1 is chosen, and 1 wherever that
    is possible: then nothing is resampled. Among equals, the shape nearest to that of what is marked. Where no shape
    fits, as in a thin panorama, it is the box that comes nearest to one, 16 px a side where the picture has them. A box
    that would stand over is shifted inside.

    Args:
        mask: What is marked in the picture, (height, width), something at least.
        sizes: The trained sizes, each (width, height) in pixels.
        margin: The pixels to leave on each side of what is marked, cut off at the picture's borders. By default
            `usual_margin`.

    Raises:
        RequestError: The margin is negative or no whole number.
    """
    picture = mask.shape[1], mask.shape[0]
    marked = bounds(mask)
    margin = usual_margin(marked) if margin is None else check_margin(margin)
    left, right = max(marked[0] - margin, 0), min(marked[2] + margin, picture[0])
    top, bottom = max(marked[1] - margin, 0), min(marked[3] + margin, picture[1])
    width, height = _extent((right - left, bottom - top), picture, sizes)
    x = _shifted((left + right - width) // 2, width, left, right, picture[0])
    y = _shifted((top + bottom - height) // 2, height, top, bottom, picture[1])
    return x, y, x + width, y + height


def _extent(wanted: Size, picture: Size, sizes: Sequence[Size]) -> Size:
    """Return the (width, height) of the box: at least what is wanted, at most the picture."""
    fitting: list[tuple[float, float, Size]] = []
    others: list[tuple[float, float, Size]] = []
    for size in sizes:
        least = max(wanted[0] / size[0], wanted[1] / size[1])
        most = min(picture[0] / size[0], picture[1] / size[1])
        scale = max(1.0, least) if most >= 1 else max(most, least)
        extent = _scaled(size, scale, wanted, picture)
        from_wanted = _difference(size, wanted)
        if least <= most:
            fitting.append((abs(math.log(scale)), from_wanted, extent))
        else:
            others.append((_difference(size, extent), from_wanted, extent))
    return min(fitting or others)[2]


def _scaled(size: Size, scale: float, wanted: Size, picture: Size) -> Size:
    """Return a scaled size in whole pixels, not below what is wanted or 16 px, and not beyond the picture."""
    width, height = (
        min(max(round(scale * side), least, PIXELS_PER_TOKEN), most)
        for side, least, most in zip(size, wanted, picture, strict=True)
    )
    return width, height


def _difference(one: Size, other: Size) -> float:
    """Return how far two aspect ratios are apart, as the logarithm of their ratio."""
    return abs(math.log(one[0] * other[1] / (one[1] * other[0])))


def _shifted(start: int, length: int, first: int, last: int, end: int) -> int:
    """Return where a side begins so that it covers `first` to `last` and lies within 0 to `end`."""
    return min(max(start, last - length, 0), first, end - length)

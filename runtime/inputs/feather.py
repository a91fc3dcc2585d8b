"""Makes the edge of a mask soft: inside it alone, and in thin parts, too."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.errors import RequestError
from .placed_masks import bounds

MAX_RADIUS = 128
"""The widest ramp in pixels: squares of distances up to there fit 16 bits."""
_LEVELS = 16
"""The number of widths that are told apart in parts thinner than the radius."""


def check_radius(radius: Any) -> int:
    """Return the width of a ramp. Raises RequestError for another than a whole number from 0 to 128."""
    whole = isinstance(radius, numbers.Integral) and not isinstance(radius, bool)
    if not whole or not 0 <= int(radius) <= MAX_RADIUS:
        raise RequestError(f"feather must be a whole number of pixels from 0 to {MAX_RADIUS}, not {radius!r}")
    return int(radius)


def feather(mask: NDArray[np.bool_], radius: int) -> NDArray[np.uint8]:
    """Return how much of an edit is taken per pixel: 0 outside the mask, all of it well inside, a ramp between.

    It is depth / min(radius, thickness): depth is the distance to the nearest pixel outside the mask, thickness the
    radius of the greatest disc or square in the mask that covers the pixel (Hildebrand and Rüegsegger 1997, "local
    thickness") or is next to it, so that the steps of a slanted edge are no thin parts. The middle of a thin part is
    taken whole. The picture's border is no edge of the mask.

    Args:
        mask: What is marked, (height, width).
        radius: The width of the ramp in pixels, 0 to 128; 0 and 1 leave the edge hard.

    Returns:
        (height, width) uint8: 0 wherever `mask` is False, 255 wherever the depth is `radius` or more.

    Raises:
        RequestError: The radius is not possible.
    """
    radius = check_radius(radius)
    alpha = np.where(mask, np.uint8(255), np.uint8(0))
    if radius <= 1 or not mask.any() or mask.all():
        return alpha
    left, top, right, bottom = bounds(mask)
    around = np.s_[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]  # with the edge that is measured from
    inside = mask[around]
    squared = _squared_depth(inside, radius)
    width = _thickness(inside, squared, radius)
    ramp = np.minimum(np.sqrt(squared.astype(np.float32)) / width, 1)
    alpha[around] = np.where(inside, np.rint(255 * ramp), 0).astype(np.uint8)
    return alpha


def _squared_depth(inside: NDArray[np.bool_], radius: int) -> NDArray[np.uint16]:
    """Return the squared distance to the nearest pixel outside, up to the radius: along columns, then along rows."""
    depth = np.where(inside, np.uint16(radius), np.uint16(0))
    for row in range(1, len(depth)):
        np.minimum(depth[row], depth[row - 1] + np.uint16(1), out=depth[row])
    for row in range(len(depth) - 2, -1, -1):
        np.minimum(depth[row], depth[row + 1] + np.uint16(1), out=depth[row])
    column = depth * depth
    squared = column.copy()
    for shift in range(1, min(radius, inside.shape[1])):
        shifted = column + np.uint16(shift * shift)
        np.minimum(squared[:, shift:], shifted[:, :-shift], out=squared[:, shift:])
        np.minimum(squared[:, :-shift], shifted[:, shift:], out=squared[:, :-shift])
    return squared


def _thickness(inside: NDArray[np.bool_], squared: NDArray[np.uint16], radius: int) -> NDArray[np.uint8]:
    """Return the radius of the greatest disc or square inside that covers a pixel, up to the radius.

    A disc may also be next to the pixel.
    """
    thickness = np.ones(inside.shape, np.uint8)
    outside, reach = _packed(~inside), 0
    there = _packed(np.ones_like(inside))  # not what fills up a row's last word
    for level in _levels(radius):
        outside, reach = _with_square(outside, level - 1 - reach), level - 1
        covered = _with_disc(_packed(squared >= level * level), level + 1) | _with_square(~outside & there, reach)
        np.copyto(thickness, np.uint8(level), where=_unpacked(covered, inside.shape[1]))
    return thickness


def _levels(radius: int) -> list[int]:
    """Return the thicknesses that are told apart, from 2 to the radius: all up to 16, else 16 in equal ratios."""
    if radius <= _LEVELS:
        return list(range(2, radius + 1))
    return sorted({max(2, round(radius ** (step / _LEVELS))) for step in range(1, _LEVELS + 1)})


Words = NDArray[np.uint64]
"""The bits of rows, 64 columns per word, the first in the highest bit."""


def _packed(marked: NDArray[np.bool_]) -> Words:
    filled = np.pad(marked, ((0, 0), (0, -marked.shape[1] % 64)))
    return np.ascontiguousarray(np.packbits(filled, axis=1)).view(">u8").astype(np.uint64)


def _unpacked(words: Words, width: int) -> NDArray[np.bool_]:
    return np.unpackbits(words.astype(">u8").view(np.uint8), axis=1, count=width).view(np.bool_)


def _with_disc(centres: Words, radius: int) -> Words:
    """Return all that is nearer than the radius to a centre."""
    covered = np.zeros_like(centres)
    wide, width = centres, 0
    for distance in range(min(radius, len(centres)) - 1, -1, -1):
        reach = math.isqrt(radius * radius - distance * distance - 1)
        wide, width = _widened(wide, reach - width), reach
        covered[distance:] |= wide[: len(wide) - distance]
        covered[: len(wide) - distance] |= wide[distance:]
    return covered


def _with_square(centres: Words, reach: int) -> Words:
    """Return all that lies in a square of side 2 reach + 1 around a centre."""
    tall, done = _widened(centres, reach), 0
    while done < min(reach, len(centres)):
        step = min(done + 1, reach - done, len(centres))
        grown = tall.copy()
        grown[step:] |= tall[: len(tall) - step]
        grown[: len(tall) - step] |= tall[step:]
        tall, done = grown, done + step
    return tall


def _widened(marked: Words, reach: int) -> Words:
    """Return all that lies within `reach` columns of what is marked, in steps that leave no gap, at a border either."""
    wide, done = marked, 0
    while done < reach:
        step = min(done + 1, reach - done, 63)
        right, left = wide >> np.uint64(step), wide << np.uint64(step)
        right[:, 1:] |= wide[:, :-1] << np.uint64(64 - step)
        left[:, :-1] |= wide[:, 1:] >> np.uint64(64 - step)
        wide, done = wide | right | left, done + step
    return wide

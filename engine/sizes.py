"""Defines picture sizes: those that FLUX.1 Kontext [dev] was trained at, which are possible, how they are written."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

from .components import PIXELS_PER_TOKEN
from .errors import RequestError

Size = tuple[int, int]
"""The (width, height) of a picture in pixels."""
Grid = tuple[int, int]
"""The (height, width) of a picture in tokens."""

MAX_OUTPUT_SIDE = 8192
"""The longest side of an output in pixels.

At its square, attention is over 262 144 tokens: 64 times as many as the model was trained with.
"""

_PORTRAIT = (
    (672, 1568),
    (688, 1504),
    (720, 1456),
    (752, 1392),
    (800, 1328),
    (832, 1248),
    (880, 1184),
    (944, 1104),
)
TRAINED_SIZES: tuple[Size, ...] = (
    *_PORTRAIT,
    (1024, 1024),
    *((height, width) for width, height in reversed(_PORTRAIT)),
)
"""The (width, height) in pixels that the model was trained at, from the narrowest to the widest."""


def squarest(sizes: Sequence[Size]) -> Size:
    """Return the size nearest to a square; among equals the largest.

    It is what plans are best at, and generation's default.
    """
    return min(sizes, key=lambda size: (max(size) / min(size), -size[0] * size[1]))


def check_size(size: Size) -> Size:
    """Return a size in Python's own numbers.

    Raises:
        RequestError: A side is not a multiple of 16, from 16 to 8192.
    """
    try:
        width, height = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        raise RequestError(f"a size is two whole numbers, (width, height), not {size!r}") from None
    if max(width, height) > MAX_OUTPUT_SIDE:
        raise RequestError(f"size {width}x{height} is not possible: sides of up to {MAX_OUTPUT_SIDE} px are")
    if width <= 0 or height <= 0 or width % PIXELS_PER_TOKEN or height % PIXELS_PER_TOKEN:
        rounded = tuple(max(1, round(side / PIXELS_PER_TOKEN)) * PIXELS_PER_TOKEN for side in (width, height))
        raise RequestError(
            f"size {width}x{height} is not possible: both sides must be positive multiples of {PIXELS_PER_TOKEN}; "
            f"the nearest is {rounded[0]}x{rounded[1]}"
        )
    return width, height


def parse_size(text: str) -> Size:
    """Read "1024x768" as (1024, 768); raise RequestError for anything else, or a size that is not possible."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*x\s*(\d{1,9})\s*", text, re.IGNORECASE)
    if match is None:
        raise RequestError(f"a size is WIDTHxHEIGHT, such as 1024x1024, not {text!r}")
    return check_size((int(match[1]), int(match[2])))


def size_text(size: Size) -> str:
    """Return (width, height) as "WIDTHxHEIGHT"."""
    return f"{size[0]}x{size[1]}"


def token_grid(size: Size) -> Grid:
    """Return the (height, width) in tokens of a (width, height) in pixels."""
    return size[1] // PIXELS_PER_TOKEN, size[0] // PIXELS_PER_TOKEN

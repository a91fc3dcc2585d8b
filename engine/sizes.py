"""The picture sizes that FLUX.1 Kontext [dev] was trained at."""

from __future__ import annotations

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
TRAINED_SIZES: tuple[tuple[int, int], ...] = (
    *_PORTRAIT,
    (1024, 1024),
    *((height, width) for width, height in reversed(_PORTRAIT)),
)
"""(width, height) in pixels, from the narrowest to the widest."""

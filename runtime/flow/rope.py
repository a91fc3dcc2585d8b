"""Computes the rotary position tables of the joint sequence [text, target, reference].

Source: diffusers `FluxPosEmbed`; BFL `src/flux/math.py` `rope`, and `sampling.py` for the ids.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...engine.sizes import Grid


def position_ids(text_length: int, target: Grid, reference: Grid | None) -> NDArray[np.float64]:
    """Return ids (s, 3): text (0, 0, 0), target (0, y, x), reference (1, y, x), y and x from 0 in each."""
    parts = [np.zeros((text_length, 3))]
    for first, grid in enumerate((target, reference)):
        if grid is not None:
            y, x = np.indices(grid)
            parts.append(np.stack([np.full(grid, first), y, x], axis=-1).reshape(-1, 3))
    return np.concatenate(parts).astype(np.float64)


@lru_cache(maxsize=8)
def rope_tables(
    text_length: int, target: Grid, reference: Grid | None, axes: tuple[int, ...], theta: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cos and sin, each (s, sum(axes) / 2) float32, one column per pair, from float64 angles.

    Both are read-only.
    """
    ids = position_ids(text_length, target, reference)
    angles = np.concatenate(
        [ids[:, [i]] / theta ** (np.arange(0, width, 2, dtype=np.float64) / width) for i, width in enumerate(axes)],
        axis=1,
    )
    tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    for table in tables:
        table.flags.writeable = False
    return tables

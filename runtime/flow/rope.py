"""Computes the rotary position tables of the joint sequence [text, target, references].

Source: diffusers `FluxPosEmbed`; BFL `src/flux/math.py` `rope`, and `sampling.py` for the ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...engine.sizes import Grid
from ..inputs.references import ReferenceMethod


def reference_origins(references: Sequence[Grid], method: ReferenceMethod) -> list[tuple[int, int, int]]:
    """Return where the positions of each reference begin: (index, row, column) in tokens.

    Source: ComfyUI `comfy/ldm/flux/model.py`, in tokens: its latents are halved, and ours have even sides.

    Args:
        references: The rows and columns of each, in tokens.
        method: How they lie.
    """
    if method is ReferenceMethod.INDEX:
        return [(index, 0, 0) for index in range(1, len(references) + 1)]
    origins, height, width = [], 0, 0
    for rows, columns in references:
        beside = rows + height > columns + width  # to the right of what is there, else below it
        row, column = (0, width) if beside else (height, 0)
        origins.append((1, row, column))
        height, width = max(height, row + rows), max(width, column + columns)
    return origins


def position_ids(
    text_length: int, target: Grid, references: Sequence[Grid], method: ReferenceMethod = ReferenceMethod.OFFSET
) -> NDArray[np.float64]:
    """Return ids (s, 3): text (0, 0, 0), target (0, y, x) from 0, references (index, y, x) from their origins."""
    parts: list[NDArray[np.float64]] = [np.zeros((text_length, 3))]
    origins = reference_origins(references, method)
    for grid, origin in zip((target, *references), ((0, 0, 0), *origins), strict=True):
        y, x = np.indices(grid)
        parts.append((np.stack([np.zeros(grid), y, x], axis=-1) + np.array(origin, np.float64)).reshape(-1, 3))
    return np.concatenate(parts)


@lru_cache(maxsize=8)
def rope_tables(
    text_length: int,
    target: Grid,
    references: tuple[Grid, ...],
    axes: tuple[int, ...],
    theta: float,
    method: ReferenceMethod = ReferenceMethod.OFFSET,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cos and sin, each (s, sum(axes) / 2) float32, one column per pair, from float64 angles.

    Both are read-only.
    """
    ids = position_ids(text_length, target, references, method)
    angles = np.concatenate(
        [ids[:, [i]] / theta ** (np.arange(0, width, 2, dtype=np.float64) / width) for i, width in enumerate(axes)],
        axis=1,
    )
    tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    for table in tables:
        table.flags.writeable = False
    return tables

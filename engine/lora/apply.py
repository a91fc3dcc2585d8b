"""Gives a tensor with the changes of LoRA files, in float32.

Sources: peft 0.21.2 (tuners/lora/layer.py `merge`, tuners/lora/dora.py), lycoris-lora 4.1.3
(functional/general.py `_weight_decompose`), ComfyUI (comfy/weight_adapter/base.py `weight_decompose`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .changes import Change, Difference, LowRank, Magnitude, Matrix

ROWS = 1024
"""The rows of a weight that are changed at a time; more take more memory and are not faster."""
_EPSILON = float(np.finfo(np.float32).eps)


def apply_changes(weight: Matrix, files: Sequence[tuple[Sequence[Change], float]]) -> Matrix:
    """Return a tensor with changes; `weight` itself is changed.

    Args:
        weight: The tensor, contiguous and in float32; what is beyond float32 becomes infinity or NaN.
        files: What each file changes of it, with the user's scale of the file, in the order in which files are applied.
    """
    for changes, scale in files:
        ordered = sorted(changes, key=lambda change: isinstance(change, Magnitude))
        with np.errstate(over="ignore", invalid="ignore"):  # a caller looks at what it gives
            _apply_file(weight, ordered, scale)
    return weight


def _apply_file(weight: Matrix, changes: Sequence[Change], scale: float) -> None:
    if scale != 1 and any(isinstance(change, Magnitude) and change.blended for change in changes):
        before = weight.copy()
        _apply(weight, changes, 1.0)
        weight -= before
        weight *= np.float32(scale)
        weight += before
    else:
        _apply(weight, changes, scale)


def _apply(weight: Matrix, changes: Sequence[Change], scale: float) -> None:
    for change in changes:
        if isinstance(change, (LowRank, Difference)):
            _add(weight, change, scale)
        elif isinstance(change, Magnitude):
            _renormalize(weight, change)
        else:
            weight[...] = change.values


def _add(weight: Matrix, change: LowRank | Difference, scale: float) -> None:
    factor = np.float32(scale * change.scale)
    for start in range(0, weight.shape[0], ROWS):
        stop = min(start + ROWS, weight.shape[0])
        if isinstance(change, LowRank):
            delta = change.up[start:stop] @ change.down
        else:
            delta = np.array(change.rows(start, stop))
        delta *= factor
        weight[start:stop] += delta


def _renormalize(weight: Matrix, change: Magnitude) -> None:
    """Give each row or column of a changed weight the norm that DoRA trained.

    LyCORIS adds an epsilon to norms and PEFT does not; a norm of 0 divides nothing here.
    """
    norms = _norms(weight, 1 if change.values.shape[1] == 1 else 0)
    if change.blended:
        norms += np.float32(_EPSILON)
    weight *= change.values / np.maximum(norms, np.float32(np.finfo(np.float32).tiny))


def _norms(weight: Matrix, axis: int) -> Matrix:
    """Return the norms of rows (axis 1) or columns (axis 0), summed in float64 as long columns need it."""
    sums = np.zeros((weight.shape[0], 1) if axis == 1 else (1, weight.shape[1]))
    for start in range(0, weight.shape[0], ROWS):
        squares = np.square(weight[start : start + ROWS], dtype=np.float64)
        if axis == 1:
            sums[start : start + ROWS] = squares.sum(axis=1, keepdims=True)
        else:
            sums += squares.sum(axis=0, keepdims=True)
    return np.sqrt(sums).astype(np.float32)

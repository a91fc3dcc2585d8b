"""Computes bfloat16 matrices from FP8 ones."""

from __future__ import annotations

import ctypes

from ...device.launch import POINTER
from .device import KernelDevice
from .enqueuing import Enqueuing
from .packs import enqueue_packs
from .products import Matrix


def enqueue_widening(
    enqueuing: Enqueuing,
    device: KernelDevice,
    x: Matrix,
    address: int,
    *,
    scale: float = 1.0,
    scales: int = 0,
    scale_step: int = 0,
) -> None:
    """Enqueue the widening of an FP8 matrix, whose columns are a multiple of PACK, to (rows, columns) bfloat16.

    Args:
        enqueuing: What remembers it.
        device: Where it runs.
        x: The matrix.
        address: Where the result goes.
        scale: What all values are multiplied by.
        scales: The address of float32 values that rows are multiplied by, too; 0 for none.
        scale_step: From one row's to that of the next: 1, or 0 where all have the same.
    """
    further = (scale, ctypes.c_float), (scales, POINTER), (scale_step, ctypes.c_int)
    enqueue_packs(enqueuing, device.function("widen"), x, address, further)

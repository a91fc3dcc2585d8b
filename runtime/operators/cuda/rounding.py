"""Computes FP8 matrices from bfloat16 ones."""

from __future__ import annotations

import ctypes

from .device import KernelDevice
from .enqueuing import Enqueuing
from .packs import enqueue_packs
from .products import Matrix


def enqueue_rounding(
    enqueuing: Enqueuing, device: KernelDevice, x: Matrix, address: int, *, stride: int, scale: float
) -> None:
    """Enqueue the rounding of a matrix to FP8.

    Args:
        enqueuing: What remembers it.
        device: Where it runs.
        x: The matrix.
        address: Where the result goes.
        stride: The values from one row of the result to the next.
        scale: What the result is multiplied by where it is read.
    """
    further = (stride, ctypes.c_longlong), (1 / scale, ctypes.c_float)
    enqueue_packs(enqueuing, device.function("quantize"), x, address, further)

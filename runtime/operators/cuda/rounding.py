"""Computes FP8 matrices from bfloat16 ones."""

from __future__ import annotations

import ctypes

from ...device.launch import POINTER
from .device import KernelDevice
from .enqueuing import Enqueuing
from .products import Matrix
from .sizes import PACK


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
    packs = x.rows * x.columns // PACK
    enqueuing.launch(
        device.function("quantize"),
        -(-packs // 256),
        256,
        (
            (x.address, POINTER),
            (address, POINTER),
            (packs, ctypes.c_longlong),
            (x.columns // PACK, ctypes.c_int),
            (x.stride, ctypes.c_longlong),
            (stride, ctypes.c_longlong),
            (1 / scale, ctypes.c_float),
        ),
    )

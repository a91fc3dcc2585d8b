"""Enqueues kernels that compute a matrix from another, a pack of values per thread."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from ...device.launch import POINTER
from .enqueuing import Enqueuing
from .products import Matrix
from .sizes import PACK


def enqueue_packs(
    enqueuing: Enqueuing, function: object, x: Matrix, address: int, further: Sequence[tuple[Any, Any]]
) -> None:
    """Enqueue a kernel over the packs of a matrix.

    Args:
        enqueuing: What remembers it.
        function: The kernel, whose first arguments say where the matrices lie, and what the first is.
        x: The matrix that it reads, whose columns are a multiple of PACK.
        address: Where the result goes.
        further: The arguments after these, with their ctypes types.
    """
    packs = x.rows * x.columns // PACK
    arguments = (
        (x.address, POINTER),
        (address, POINTER),
        (packs, ctypes.c_longlong),
        (x.columns // PACK, ctypes.c_int),
        (x.stride, ctypes.c_longlong),
        *further,
    )
    enqueuing.launch(function, -(-packs // 256), 256, arguments)

"""Shows memory that ONNX Runtime owns as NumPy arrays, and arrays as memory."""

from __future__ import annotations

import ctypes
from math import prod

import numpy as np

from ....engine.number_types import NUMBER_TYPES
from .bodies import Value
from .exchange import Array


def array_at(address: int, shape: tuple[int, ...], number_type: str) -> Array:
    """Return the tensor at an address as an array, without a copy; FP8 as bytes."""
    dtype = np.dtype(NUMBER_TYPES[number_type].numpy)
    memory = (ctypes.c_uint8 * (prod(shape) * dtype.itemsize)).from_address(address)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)


def value_of(array: Array) -> Value:
    """Return where a contiguous array lies."""
    assert array.flags.c_contiguous
    return Value(array.ctypes.data, array.shape)

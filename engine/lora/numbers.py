"""Reads tensors of a LoRA file as float32, whatever floating-point type they have, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..bundle.tensor_file import TensorEntry
from ..errors import LoraError
from .changes import Matrix

Bits = NDArray[Any]


def _fp8(exponent_bits: int, bias: int, codes: NDArray[np.uint8]) -> Matrix:
    """Return the values of 8-bit codes with this many exponent bits; special values are the caller's."""
    mantissa_bits = 7 - exponent_bits
    numbers = codes.astype(np.int32)
    exponent = (numbers & 0x7F) >> mantissa_bits
    mantissa = (numbers & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    magnitude = np.where(exponent == 0, np.ldexp(mantissa, 1 - bias), np.ldexp(1 + mantissa, exponent - bias))
    return np.where(numbers & 0x80, -magnitude, magnitude).astype(np.float32)


@cache
def _e4m3() -> Matrix:
    values = _fp8(4, 7, np.arange(256, dtype=np.uint8))
    values[[0x7F, 0xFF]] = np.nan  # E4M3FN has no infinity
    return values


@cache
def _e5m2() -> Matrix:
    """Return the values of all codes, which are the upper bytes of float16, special values too."""
    return (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32)


def _from_bf16(raw: Bits) -> Matrix:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _plain(dtype: str) -> Callable[[Bits], Matrix]:
    def read(raw: Bits) -> Matrix:
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinity, which is refused
            return raw.view(dtype).astype(np.float32)

    return read


_READERS: Mapping[str, Callable[[Bits], Matrix]] = {
    "F64": _plain("<f8"),
    "F32": _plain("<f4"),
    "F16": _plain("<f2"),
    "BF16": _from_bf16,
    "F8_E4M3": lambda raw: _e4m3()[raw],
    "F8_E5M2": lambda raw: _e5m2()[raw],
}
"""The types that are read as numbers, by their names in safetensors."""
_INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
"""The types that `alpha` and a shape may have beside them."""


def read_values(file: BinaryIO, entry: TensorEntry, name: str, source: str, *, integers: bool = False) -> Matrix:
    """Return a tensor in float32.

    Args:
        file: The open file.
        entry: Where the tensor lies.
        name: Its name, for messages.
        source: The file's path, for messages.
        integers: Whether whole numbers are read, too.

    Raises:
        LoraError: It has a type that is not read or a shape that no array has, or holds NaN or infinity.
    """
    readers = {**_READERS, **{dtype: _plain(one) for dtype, one in _INTEGERS.items()}} if integers else _READERS
    if entry.dtype not in readers:
        raise LoraError(
            f"{source}: tensor {name:.200} has the type {entry.dtype}; a LoRA is read in {', '.join(_READERS)}"
        )
    file.seek(entry.offset)
    raw = np.frombuffer(file.read(entry.size_bytes), dtype=np.uint8)
    try:
        values = readers[entry.dtype](raw).reshape(entry.shape)
    except ValueError as error:  # an endless extent beside one of 0, or a file that has become shorter
        raise LoraError(f"{source}: tensor {name:.200} cannot be read as {list(entry.shape)} ({error})") from error
    if not np.isfinite(values).all():
        raise LoraError(
            f"{source}: tensor {name:.200} holds NaN or infinity in float32; the file is damaged, or its training "
            "diverged: use another checkpoint of it"
        )
    return values

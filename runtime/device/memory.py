"""Device memory: blocks that are cut into tensors, page-locked staging, and the one arena of all engines."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ...engine.components import ElementType
from ..executor import Array
from ..host_workspace import NUMPY_TYPES
from ..tensors import TensorSpec
from .cuda import Cuda, Handle

ALIGNMENT = 256
"""Bytes. TensorRT asks it of every input and output (NvInferRuntime.h, setTensorAddress)."""


def aligned(size_bytes: int) -> int:
    """The next multiple of the alignment; what is empty gets a place, too."""
    return max(1, -(-size_bytes // ALIGNMENT)) * ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTensor:
    """A contiguous tensor at an address of the device. It owns nothing: its block must outlive it."""

    address: int
    shape: tuple[int, ...]
    element_type: ElementType

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * self.element_type.item_bytes

    def __getitem__(self, index: int | slice) -> DeviceTensor:
        start, shape = (index, self.shape[1:]) if isinstance(index, int) else self._rows(index)
        assert 0 <= start <= self.shape[0]
        row_bytes = prod(self.shape[1:]) * self.element_type.item_bytes
        return replace(self, address=self.address + start * row_bytes, shape=shape)

    def _rows(self, index: slice) -> tuple[int, tuple[int, ...]]:
        start, stop, step = index.indices(self.shape[0])
        assert step == 1
        return start, (stop - start, *self.shape[1:])

    def reshape(self, shape: tuple[int, ...]) -> DeviceTensor:
        assert prod(shape) == prod(self.shape)
        return replace(self, shape=shape)


def layout(tensors: Mapping[str, TensorSpec]) -> tuple[dict[str, int], int]:
    """Where each tensor begins in a block that holds them all, and the block's size."""
    offsets, end = {}, 0
    for name, spec in tensors.items():
        offsets[name] = end
        end += aligned(spec.size_bytes)
    return offsets, end


class DeviceBlock:
    """One allocation that holds named tensors."""

    def __init__(self, cuda: Cuda, tensors: Mapping[str, TensorSpec]) -> None:
        self._cuda = cuda
        offsets, self.size_bytes = layout(tensors)
        self._address = cuda.malloc(self.size_bytes)
        self.tensors = {
            name: DeviceTensor(address=self._address + offsets[name], shape=spec.shape, element_type=spec.element_type)
            for name, spec in tensors.items()
        }

    def close(self) -> None:
        """Free the memory. The caller has made sure that nothing on the device uses it."""
        if self._address:
            self._cuda.free(self._address)
            self._address = 0
            self.tensors = {}


class Staging:
    """Page-locked host memory with a place a tensor, which copies to and from the device go through."""

    def __init__(self, cuda: Cuda, tensors: Mapping[str, TensorSpec]) -> None:
        self._cuda = cuda
        offsets, size = layout(tensors)
        self._address = cuda.malloc_host(size)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._address))
        self.addresses = {name: self._address + offset for name, offset in offsets.items()}
        self.arrays: dict[str, Array] = {
            name: memory[offsets[name] :][: spec.size_bytes].view(NUMPY_TYPES[spec.element_type]).reshape(spec.shape)
            for name, spec in tensors.items()
        }

    def close(self) -> None:
        if self._address:
            self._cuda.free_host(self._address)
            self._address = 0
            self.arrays, self.addresses = {}, {}


class Arena:
    """The activations of all engines, which never run at the same time: one block, as large as the hungriest needs.

    It grows where it must. What has recorded its address is told before (`on_move`), and must let go of it.
    """

    def __init__(self, cuda: Cuda, stream: Handle, on_move: Callable[[], None]) -> None:
        self._cuda, self._stream, self._on_move = cuda, stream, on_move
        self.address = 0
        self.size_bytes = 0

    def reserve(self, size_bytes: int) -> None:
        """Make it at least this large. Raises CudaError if there is no memory; it is empty then."""
        if size_bytes <= self.size_bytes:
            return
        self.close()
        self.address = self._cuda.malloc(aligned(size_bytes))
        self.size_bytes = aligned(size_bytes)

    def close(self) -> None:
        if self.address:
            self._on_move()
            self._cuda.synchronize(self._stream)
            address, self.address, self.size_bytes = self.address, 0, 0
            self._cuda.free(address)

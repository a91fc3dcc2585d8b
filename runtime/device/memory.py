"""Allocates memory: device blocks that are cut into tensors, page-locked staging, the one arena of all engines."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..flow.tensors import TensorSpec, aligned
from ..flow.workspace import Array
from .cuda import Cuda, Handle
from .graphs import Graphs


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTensor:
    """Stands for a tensor at an address of the device, contiguous but for what may lie between rows.

    It owns nothing: its block must outlive it.
    """

    address: int
    spec: TensorSpec

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def size_bytes(self) -> int:
        return self.spec.size_bytes

    def __getitem__(self, index: int | slice) -> DeviceTensor:
        """Return a row as `tensor[i]`, or rows as `tensor[i:j]` with their axis kept."""
        start, stop = (index, index + 1) if isinstance(index, int) else (index.start, index.stop)
        assert 0 <= start < stop <= self.shape[0]
        assert stop == start + 1 or not self.spec.rows_apart
        shape = self.shape[1:] if isinstance(index, int) else (stop - start, *self.shape[1:])
        spec = TensorSpec(shape=shape, element_type=self.spec.element_type)
        return DeviceTensor(address=self.address + start * self.spec.row_bytes, spec=spec)

    def reshape(self, shape: tuple[int, ...]) -> DeviceTensor:
        assert prod(shape) == prod(self.shape)
        return DeviceTensor(address=self.address, spec=TensorSpec(shape=shape, element_type=self.spec.element_type))


def layout(tensors: Mapping[str, TensorSpec]) -> tuple[dict[str, int], int]:
    """Return where each tensor begins in a block that holds them all, and the block's size, in bytes."""
    offsets, end = {}, 0
    for name, spec in tensors.items():
        offsets[name] = end
        end += aligned(spec.size_bytes)
    return offsets, end


class DeviceBlock:
    """Holds named tensors in one allocation."""

    def __init__(self, cuda: Cuda, tensors: Mapping[str, TensorSpec]) -> None:
        self._cuda = cuda
        offsets, self.size_bytes = layout(tensors)
        self._address = cuda.malloc(self.size_bytes)
        self.tensors = {
            name: DeviceTensor(address=self._address + offsets[name], spec=spec) for name, spec in tensors.items()
        }

    def close(self) -> None:
        """Free the memory. The caller has made sure that nothing on the device uses it."""
        if self._address:
            self._cuda.free(self._address)
            self._address = 0
            self.tensors = {}


class Staging:
    """Holds page-locked host memory with one place per tensor, which copies to and from the device go through."""

    def __init__(self, cuda: Cuda, tensors: Mapping[str, TensorSpec]) -> None:
        self._cuda = cuda
        offsets, size = layout(tensors)
        self._address = cuda.malloc_host(size)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._address))
        self.addresses = {name: self._address + offset for name, offset in offsets.items()}
        self.arrays: dict[str, Array] = {name: _array(memory[offsets[name] :], spec) for name, spec in tensors.items()}

    def close(self) -> None:
        if self._address:
            self._cuda.free_host(self._address)
            self._address = 0
            self.arrays, self.addresses = {}, {}


def _array(memory: NDArray[np.uint8], spec: TensorSpec) -> Array:
    """Return a view of a tensor's bytes, as they lie on the device."""
    rows = memory[: spec.size_bytes].reshape(spec.shape[0], spec.row_bytes)
    contiguous = prod(spec.shape[1:]) * spec.element_type.item_bytes
    array = rows[:, :contiguous].view(spec.element_type.number.numpy).reshape(spec.shape)
    assert np.shares_memory(array, memory) or not array.size
    return array


class Arena:
    """Holds the activations of all engines in one block, as large as the hungriest needs.

    The engines never run at the same time. The block grows where it must. All graphs have recorded its address, so they
    are dropped before it moves.
    """

    def __init__(self, cuda: Cuda, stream: Handle, graphs: Graphs) -> None:
        self._cuda, self._stream, self._graphs = cuda, stream, graphs
        self.address = 0
        self.size_bytes = 0

    @property
    def place(self) -> tuple[int, int]:
        """The arena's address and size."""
        return self.address, self.size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Let go of the arena if it is larger than this."""
        if self.size_bytes > size_bytes:
            self.close()

    def reserve(self, size_bytes: int) -> None:
        """Make the arena at least this large. Raises CudaError if there is no memory; it is empty then."""
        if size_bytes <= self.size_bytes:
            return
        self.close()
        self.address = self._cuda.malloc(aligned(size_bytes))
        self.size_bytes = aligned(size_bytes)

    def close(self) -> None:
        if self.address:
            self._graphs.drop()
            self._cuda.synchronize(self._stream)
            address, self.address, self.size_bytes = self.address, 0, 0
            self._cuda.free(address)

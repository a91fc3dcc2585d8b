"""Measures what pictures cost at the borders of graphs: as uint8, which our graphs take and give, and as float32."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from ...engine.components import ElementType
from ...engine.errors import ExecutorError
from ...runtime.device.cuda import Cuda
from ...runtime.device.memory import DeviceBlock, Staging
from ...runtime.flow.tensors import TensorSpec

Picture = NDArray[np.uint8]
Carry = Callable[[NDArray[np.generic]], NDArray[np.generic]]
"""The function that brings an array to where networks run, and back."""


def to_float(picture: Picture) -> NDArray[np.float32]:
    """Convert (H, W, 3) uint8 to (3, H, W) float32 in -1..1, as a VAE without a border of its own takes it."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1).astype(np.float32) / np.float32(127.5) - np.float32(1))


def to_bytes(pixels: NDArray[np.float32]) -> Picture:
    """Convert (3, H, W) float32 in -1..1 to (H, W, 3) uint8."""
    scaled = (pixels * np.float32(127.5) + np.float32(127.5)).clip(0, 255).round()
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(1, 2, 0))


def border_ms(picture: Picture, carry: Carry, repeat: int) -> tuple[float, float]:
    """Return the median milliseconds of one picture in and out again: as uint8, and as float32 with its conversions.

    Raises:
        ExecutorError: The picture is not the same afterwards.
    """
    as_bytes, as_floats = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        one = carry(picture)
        between = time.perf_counter()
        other = to_bytes(carry(to_float(picture)).view(np.float32))
        end = time.perf_counter()
        if not (np.array_equal(one, picture) and np.array_equal(other, picture)):
            raise ExecutorError("a picture came back otherwise from the networks' border")
        as_bytes.append(1e3 * (between - start))
        as_floats.append(1e3 * (end - between))
    return statistics.median(as_bytes), statistics.median(as_floats)


def carry_on_host(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Copy an array once into a workspace and once out of it."""
    return array.copy().copy()


class DeviceCarrier:
    """Carries pictures of one shape through page-locked memory to the device and back; it is a context manager."""

    def __init__(self, cuda: Cuda, picture: Picture) -> None:
        self._cuda, self._picture = cuda, picture
        self._stack = ExitStack()

    def __enter__(self) -> Carry:
        height, width, channels = self._picture.shape
        tensors = {
            "uint8": TensorSpec(shape=(height, width, channels), element_type=ElementType.UINT8),
            "float32": TensorSpec(shape=(channels, height, width), element_type=ElementType.FLOAT32),
        }
        with ExitStack() as stack:
            self._cuda.use()
            stream = self._cuda.stream()
            stack.callback(self._cuda.destroy_stream, stream)
            block = DeviceBlock(self._cuda, tensors)
            stack.callback(block.close)
            staging = Staging(self._cuda, tensors)
            stack.callback(staging.close)
            self._stack = stack.pop_all()

        def carry(array: NDArray[np.generic]) -> NDArray[np.generic]:
            name, size = array.dtype.name, array.nbytes
            staging.arrays[name][...] = array
            self._cuda.copy(block.tensors[name].address, staging.addresses[name], size, stream)
            self._cuda.synchronize(stream)
            self._cuda.copy(staging.addresses[name], block.tensors[name].address, size, stream)
            self._cuda.synchronize(stream)
            return staging.arrays[name].copy()

        return carry

    def __exit__(self, *_: object) -> None:
        self._stack.close()

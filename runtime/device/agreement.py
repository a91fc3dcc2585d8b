"""Lets the ranks of a group agree on what only all of them can do alike."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from ..flow.group import Group
from .cuda import Cuda, CudaError, Handle

MAX_FLAGS = 64
"""The most questions that are answered at a time."""
_SIZE_BYTES = 4 * MAX_FLAGS


class Agreement:
    """Finds out what all ranks of a group say yes to.

    NCCL demands it: whether one of its calls is recorded in a graph, and in which, must be the same on all ranks that
    take part in it. But what a rank can record hangs on its own memory, on what it has loaded, and on what it ran.

    Args:
        cuda: The rank's device.
        stream: The executor's stream.
        group: The ranks. All of them ask the same questions in the same order.
    """

    def __init__(self, cuda: Cuda, stream: Handle, group: Group) -> None:
        self._cuda, self._stream, self._group = cuda, stream, group
        self._address = cuda.malloc(_SIZE_BYTES)
        try:
            self._host = cuda.malloc_host(_SIZE_BYTES)
        except CudaError:
            cuda.free(self._address)
            raise
        self._flags = np.ctypeslib.as_array((ctypes.c_float * MAX_FLAGS).from_address(self._host))

    def all_of(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether it is set on every rank. The stream is idle afterwards.

        Raises:
            CudaError, ExecutorError: The ranks cannot be asked.
        """
        count = len(flags)
        if count > MAX_FLAGS:
            raise ValueError(f"{count} flags are more than {MAX_FLAGS}")
        if not count:
            return []
        self._flags[:count] = flags
        self._cuda.copy(self._address, self._host, 4 * count, self._stream)
        self._group.average(self._address, count)
        self._cuda.copy(self._host, self._address, 4 * count, self._stream)
        self._cuda.synchronize(self._stream)
        return [bool(mean > 1 - 0.5 / self._group.size) for mean in self._flags[:count]]

    def close(self) -> None:
        """Free the memory. Closing twice is allowed."""
        if self._address:
            self._cuda.free(self._address)
            self._cuda.free_host(self._host)
            self._address = 0

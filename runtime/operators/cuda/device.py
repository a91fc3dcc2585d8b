"""Gives kernels what they share on a device: memory that outlives recorded graphs, constants, compiled functions."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ....engine.errors import ExecutorError
from ...device.cuda import Cuda, Handle
from ...device.launch import Launcher
from ..compile import compile_cubin

CONSTANTS = 4096
"""The most different float32 values that kernels read from the device: scales of activations."""
_CONSTANT_BYTES = 16
"""The bytes from one of them to the next: cuBLASLt takes no scale whose address is not a multiple of 16."""


_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lane:
    """Holds a stream beside the executor's, and the event by which one waits for the other."""

    stream: Handle
    event: Handle


class KernelDevice:
    """Holds a device's memory and functions for kernels, all on one stream.

    Args:
        cuda: The device.
        stream: The stream of the executor whose sessions call the kernels.
        architecture: The one that kernels are compiled for: "sm_90".

    Attributes:
        scratches_freed: How often scratch memory was freed: what was enqueued before must not be enqueued again.
    """

    scratches_freed = 0

    def __init__(self, cuda: Cuda, stream: Handle, architecture: str) -> None:
        self.cuda, self.stream, self.architecture = cuda, stream, architecture
        self.stream_address = cuda.stream_address(stream)
        self.launcher = Launcher()
        self._functions: dict[tuple[str, tuple[tuple[str, int], ...]], Any] = {}
        self._scratch: dict[str, list[tuple[int, int]]] = {}
        self._kept: dict[int, int] = {}
        self._constants: dict[float, int] = {}
        self._lanes: dict[str, Lane] = {}
        self._block = 0

    @property
    def size_bytes(self) -> int:
        """The bytes of device memory that kernels share or keep."""
        scratch = sum(size for blocks in self._scratch.values() for _, size in blocks)
        return scratch + sum(self._kept.values()) + (_CONSTANT_BYTES * CONSTANTS if self._block else 0)

    @property
    def recording(self) -> bool:
        """True if what is launched is recorded instead of run."""
        return self.launcher.recording(self.stream)

    def function(self, name: str, **numbers: int) -> Any:
        """Return the function `name` of the source file of that name, compiled with these numbers as macros."""
        key = name, tuple(sorted(numbers.items()))
        if key not in self._functions:
            macros = tuple(f"-D{macro}={int(value)}" for macro, value in key[1])
            cubin = compile_cubin(self._source(name), arch=self.architecture, options=macros)
            self._functions[key] = self.launcher.function(cubin, name)
        return self._functions[key]

    def _source(self, name: str) -> str:
        return whole_source(f"{name}.cu")

    def lane(self, name: str) -> Lane:
        """Return the lane of a name; all who ask share it."""
        if name not in self._lanes:
            self._lanes[name] = Lane(self.cuda.stream(), self.cuda.event())
        return self._lanes[name]

    def launch(
        self, function: Any, grid: int, block: int, arguments: Sequence[tuple[Any, Any]], stream: Handle | None = None
    ) -> None:
        """Launch a function of a one-dimensional grid; arguments are values with their ctypes types.

        Without a stream, it is the executor's.
        """
        self.launcher.launch(function, grid, block, arguments, self.stream if stream is None else stream)

    def scratch(self, size_bytes: int, place: str = "results") -> int:
        """Return the address of memory that is free until the next kernel that asks for the same place.

        It never moves while it is large enough, and what was too small stays: recorded graphs may write there.

        Raises:
            GpuMemoryError: There is not enough memory.
        """
        blocks = self._scratch.setdefault(place, [])
        if not blocks or blocks[-1][1] < size_bytes:
            blocks.append((self.cuda.malloc(size_bytes), size_bytes))
        return blocks[-1][0]

    def free_scratch(self) -> None:
        """Free all scratch memory, once the device has finished with it. No graph of before may be launched."""
        self.cuda.synchronize(self.stream)
        self.scratches_freed += 1
        self._free_scratch()

    def _free_scratch(self) -> None:
        for address in (address for blocks in self._scratch.values() for address, _ in blocks):
            self.cuda.free(address)
        self._scratch.clear()

    def keep(self, size_bytes: int) -> int:
        """Return the address of memory that is the caller's until it is given back.

        Raises:
            GpuMemoryError: There is not enough memory.
        """
        address = self.cuda.malloc(size_bytes)
        self._kept[address] = size_bytes
        return address

    def give_back(self, address: int) -> None:
        """Free memory that was kept, unless `close` did."""
        if self._kept.pop(address, 0):
            self.cuda.free(address)

    def constant(self, value: float) -> int:
        """Return the address of a float32 value on the device.

        Raises:
            ExecutorError: There are too many of them, or this one is new while a graph is recorded.
        """
        if value not in self._constants:
            if self.recording or len(self._constants) == CONSTANTS:
                raise ExecutorError("a scale is new while a graph is recorded, or there are too many scales")
            if not self._block:
                self._block = self.cuda.malloc(_CONSTANT_BYTES * CONSTANTS)
            address = self._block + _CONSTANT_BYTES * len(self._constants)
            self.launcher.write(address, struct.pack("<f", value))
            self._constants[value] = address
        return self._constants[value]

    def close(self) -> None:
        """Free the memory. No session that calls kernels with it may run any more."""
        for address in self._kept:
            self.cuda.free(address)
        self._free_scratch()
        if self._block:
            self.cuda.free(self._block)
        for lane in self._lanes.values():
            self.cuda.destroy_event(lane.event)
            self.cuda.destroy_stream(lane.stream)
        self._lanes.clear()
        self._kept.clear()
        self._constants.clear()
        self._block = 0


@cache
def whole_source(name: str) -> str:
    """Return the text of a CUDA source file, with that of our headers in their place."""
    return _INCLUDE.sub(lambda found: whole_source(found[1]), source(name))


def source(name: str) -> str:
    """Return the text of a CUDA source file."""
    return resources.files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")

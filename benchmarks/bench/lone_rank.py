"""Runs the first rank of a group without the others, on one device: how long a rank's part takes without exchange.

What the others would send is what this rank would, over again, or zeros, so that memory holds numbers; pictures say
nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any

from ...engine.bundle.bundle import Bundle
from ...runtime.device.cuda import Cuda, Handle
from ...runtime.device.launch import Launcher
from ...runtime.executors import rank as ranks
from ...runtime.executors import rank_cuda, rank_process
from ...runtime.executors.group_executor import GroupExecutor
from ...runtime.executors.options import OnnxRuntimeOptions
from ...runtime.executors.rank_children import rank_command
from ...runtime.executors.rank_job import RankJob
from ...runtime.flow.executor import Performed
from ...runtime.flow.group import Piece
from ...runtime.flow.shares import Shares

ZEROS_BYTES = 1 << 20
"""The zeros that are copied at a time."""
_zeros = (ctypes.c_char * ZEROS_BYTES)()


class LoneExecutor(GroupExecutor):
    """Runs the first rank of a group; of what others would give, each gives what it has.

    Args:
        bundle: The bundle.
        options: Who runs it; `devices` are as many as the group would have, of which the first is used.
    """

    def __init__(self, bundle: Bundle, options: OnnxRuntimeOptions) -> None:
        super().__init__(bundle, options, command=rank_command(__name__))

    def _started_jobs(self) -> Sequence[RankJob]:
        return super()._started_jobs()[:1]

    def _running(self, component: str) -> list[int]:
        return [rank for rank in super()._running(component) if rank == 0]

    def _perform(self, arguments: Sequence[Sequence[Any]], *, times: int) -> list[Performed]:
        *own, _ = arguments[0]
        names = dict.fromkeys(name for *_, asked in arguments for name in asked)
        (found,) = super()._perform([(*own, tuple(names))], times=times)
        return [replace(found, outputs={name: found.outputs[name] for name in asked}) for *_, asked in arguments]


class Absent:
    """Implements `Group` without the other ranks.

    Args:
        rank: The number of this rank.
        size: The number of ranks that there would be.
        copy: Copies, to an address, from an address, so many bytes, on the stream of an address.
        zeros: The address of ZEROS_BYTES of zeros that `copy` takes, as long as the group is there.
        recording: Tells whether what is enqueued is recorded; then nothing is exchanged.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        copy: Callable[[int, int, int, int], object],
        zeros: int,
        recording: Callable[[], bool],
    ) -> None:
        self.rank, self.size = rank, size
        self.shares: Shares | None = None
        self._copy, self._recording = copy, recording
        self._zeros = Piece(rank, zeros, ZEROS_BYTES)

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        if self._recording():
            return
        sent = [piece for piece in sends if piece.size_bytes] or [self._zeros]
        for source, piece in zip(cycle(sent), receives, strict=False):
            for first in range(0, piece.size_bytes, source.size_bytes):
                size = min(source.size_bytes, piece.size_bytes - first)
                self._copy(piece.address + first, source.address, size, stream)

    def average(self, address: int, count: int, stream: int = 0) -> None:
        pass

    def close(self) -> None:
        pass


def on_cpu(size: int, rank: int, sockets: object, *, timeout_s: float) -> Absent:
    """Return what takes the place of a `SocketGroup` of so many ranks."""

    def copy(to: int, source: int, size_bytes: int, stream: int) -> None:
        ctypes.memmove(to, source, size_bytes)

    return Absent(rank, size, copy, ctypes.addressof(_zeros), lambda: False)


def on_cuda(cuda: Cuda, stream: Handle, unique_id: bytes, rank: int, size: int) -> Absent:
    """Return what takes the place of an `NcclGroup`."""

    def copy(to: int, source: int, size_bytes: int, on: int) -> None:
        cuda.copy(to, source, size_bytes, on or stream)

    zeros = cuda.malloc_host(ZEROS_BYTES)
    ctypes.memset(zeros, 0, ZEROS_BYTES)
    return Absent(rank, size, copy, zeros, partial(Launcher().recording, stream))


def main() -> None:
    """Run a rank as its own process does, but without the others."""

    class Lone(ranks.Rank):
        def __init__(self, job: RankJob) -> None:
            super().__init__(job)
            ranks.SocketGroup = partial(on_cpu, job.size)

    ranks.Rank = Lone
    rank_cuda.NcclGroup, rank_cuda.unique_id = on_cuda, bytes
    rank_process.main()

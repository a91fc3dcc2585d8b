"""Joins processes, each with a GPU of its own, by NCCL, whose calls a CUDA graph may record."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ...engine.errors import ExecutorError, MissingDependencyError
from ..flow.group import Piece
from ..flow.shares import Shares
from .cuda import Cuda, Handle

UNIQUE_ID_BYTES = 128
"""The size of what ranks find each other by (nccl.h, NCCL_UNIQUE_ID_BYTES)."""
_INSTALL = "install what joins GPUs with: pip install 'kontext-trt[multi]'"


def unique_id() -> bytes:
    """Return what the ranks of a new group find each other by; one of them makes it, and hands it to the others.

    Raises:
        MissingDependencyError: A package of the extra `multi` is missing.
        ExecutorError: NCCL finds no network to listen on.
    """
    nccl = _bindings()
    with _explained(nccl, "make the id of a group"):
        key = nccl.get_unique_id()  # whose memory lasts as long as it
        return ctypes.string_at(key.ptr, UNIQUE_ID_BYTES)


class NcclGroup:
    """Implements `Group` by NCCL. Making it waits until all ranks do.

    NCCL does not see that a rank has died: the others' streams then wait for ever, and so does whoever synchronizes
    with them. Who started the ranks has to watch them, and to end all when one does.

    Args:
        cuda: The rank's device, which no other rank has.
        stream: The executor's stream.
        unique_id: What `unique_id` returned on one of the ranks.
        rank: The number of this rank, from 0.
        size: The number of ranks.

    Raises:
        MissingDependencyError: A package of the extra `multi` is missing.
        ExecutorError: NCCL cannot join the ranks.
    """

    def __init__(self, cuda: Cuda, stream: Handle, unique_id: bytes, rank: int, size: int) -> None:
        if len(unique_id) != UNIQUE_ID_BYTES:
            raise ValueError(f"the id of a group has {UNIQUE_ID_BYTES} bytes, not {len(unique_id)}")
        if not 0 <= rank < size:
            raise ValueError(f"rank {rank} is none of {size} ranks, which count from 0")
        self.rank, self.size = rank, size
        self.shares: Shares | None = None
        self._cuda, self._stream = cuda, stream
        self._nccl = _bindings()
        cuda.use()
        with self._calling("join the others"):
            key = self._nccl.UniqueId()
            ctypes.memmove(key.ptr, unique_id, UNIQUE_ID_BYTES)
            self._comm: Any = self._nccl.comm_init_rank(size, key, rank)

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        address = stream or self._cuda.stream_address(self._stream)
        nccl, byte = self._nccl, int(self._nccl.DataType.Uint8)
        for one, to in zip(self._own(sends), self._own(receives), strict=True):
            self._cuda.copy(to.address, one.address, one.size_bytes, stream or self._stream)
        with self._calling("exchange tokens"):
            nccl.group_start()
            try:
                for call, pieces in ((nccl.send, sends), (nccl.recv, receives)):
                    for piece in pieces:
                        if piece.size_bytes and piece.rank != self.rank:
                            call(piece.address, piece.size_bytes, byte, piece.rank, self._joined, address)
            finally:
                nccl.group_end()  # or all that follows would only be noted

    def _own(self, pieces: Sequence[Piece]) -> list[Piece]:
        return [piece for piece in pieces if piece.size_bytes and piece.rank == self.rank]

    def average(self, address: int, count: int, stream: int = 0) -> None:
        nccl, on = self._nccl, stream or self._cuda.stream_address(self._stream)
        kind, mean = int(nccl.DataType.Float32), int(nccl.RedOp.Avg)
        with self._calling("average"):
            nccl.all_reduce(address, address, count, kind, mean, self._joined, on)

    def close(self) -> None:
        """Leave the group; the other ranks may be gone.

        NCCL's own ends wait for the others: with one that was dead, neither returned. So what NCCL holds stays until
        the process ends, which frees it.
        """
        self._comm = None

    @property
    def _joined(self) -> Any:
        if self._comm is None:
            raise ExecutorError(f"rank {self.rank} has left its group, and cannot compute with the others any more")
        return self._comm

    def _calling(self, what: str) -> AbstractContextManager[None]:
        return _explained(self._nccl, f"{what} (rank {self.rank} of {self.size})")


def _bindings() -> Any:
    """Return NCCL's bindings, with the library loaded."""
    try:
        nccl: Any = importlib.import_module("nccl.bindings.nccl")
    except ImportError as error:
        raise MissingDependencyError(f"nccl4py is not installed; {_INSTALL}") from error
    load: Callable[[], int] = nccl.get_version
    try:
        load()
    except RuntimeError as error:  # of cuda-pathfinder, which looks for the library
        reason = str(error).splitlines()[0]
        raise MissingDependencyError(f"NCCL cannot be used: {reason}; {_INSTALL}") from error
    return nccl


@contextmanager
def _explained(nccl: Any, what: str) -> Iterator[None]:
    """Raise NCCL's errors as ours."""
    try:
        yield
    except nccl.NCCLError as error:
        raise ExecutorError(
            f"NCCL could not {what}: {error}; end all ranks and start them again, with NCCL_DEBUG=WARN to see more"
        ) from error

"""Joins ranks on the CPU by sockets: the stand-in for NCCL where there is no GPU."""

from __future__ import annotations

import ctypes
import selectors
import socket
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from ...engine.errors import ExecutorError
from ..flow.group import Piece
from ..flow.shares import Shares

CHUNK_BYTES = 1 << 20
"""The most bytes that are sent or received by one call."""


class SocketGroup:
    """Implements `Group` by a connected stream socket for each pair of ranks.

    Args:
        rank: The number of this rank.
        sockets: The socket to each other rank; they are this object's to close.
        timeout_s: The seconds without a byte after which the others are given up.
    """

    def __init__(self, rank: int, sockets: Mapping[int, socket.socket], *, timeout_s: float) -> None:
        self.rank, self.size = rank, len(sockets) + 1
        self.shares: Shares | None = None
        self._sockets, self._timeout_s, self._amid = dict(sockets), timeout_s, False
        for one in self._sockets.values():
            one.setblocking(False)

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        if self._amid:  # what is still to come would be taken for this swap's
            raise ExecutorError(f"rank {self.rank} failed in an exchange before, and cannot go on")
        self._amid = True
        self._swap(sends, receives)
        self._amid = False

    def _swap(self, sends: Sequence[Piece], receives: Sequence[Piece]) -> None:
        own = [[piece for piece in pieces if piece.rank == self.rank] for pieces in (sends, receives)]
        for source, target in zip(*own, strict=True):
            assert source.size_bytes == target.size_bytes
            ctypes.memmove(target.address, source.address, source.size_bytes)
        outgoing, incoming = self._queues(sends), self._queues(receives)
        with selectors.DefaultSelector() as waiting:
            for rank, one in self._sockets.items():
                if events := _events(outgoing[rank], incoming[rank]):
                    waiting.register(one, events, rank)
            while waiting.get_map():
                ready = waiting.select(self._timeout_s)
                if not ready:
                    late = ", ".join(str(key.data) for key in waiting.get_map().values())
                    raise ExecutorError(
                        f"rank {self.rank} exchanged nothing with rank {late} for {self._timeout_s:g} s"
                    )
                for key, events in ready:
                    rank, one = key.data, self._sockets[key.data]
                    self._move(rank, one, events, outgoing[rank], incoming[rank])
                    if not (left := _events(outgoing[rank], incoming[rank])):
                        waiting.unregister(one)
                    elif left != key.events:
                        waiting.modify(one, left, rank)

    def _queues(self, pieces: Sequence[Piece]) -> dict[int, deque[memoryview]]:
        """Return the memory of pieces for each other rank, in their order."""
        queues: dict[int, deque[memoryview]] = {rank: deque() for rank in self._sockets}
        for piece in pieces:
            if piece.rank != self.rank and piece.size_bytes:
                memory = (ctypes.c_uint8 * piece.size_bytes).from_address(piece.address)
                queues[piece.rank].append(memoryview(memory).cast("B"))
        return queues

    def _move(
        self, rank: int, one: socket.socket, events: int, outgoing: deque[memoryview], incoming: deque[memoryview]
    ) -> None:
        """Send and receive what a socket takes and has."""
        try:
            if events & selectors.EVENT_WRITE and outgoing:
                _advance(outgoing, one.send(outgoing[0][:CHUNK_BYTES]))
            if events & selectors.EVENT_READ and incoming:
                count = one.recv_into(incoming[0][:CHUNK_BYTES])
                if not count:
                    raise ConnectionResetError("it closed its end")
                _advance(incoming, count)
        except BlockingIOError:
            return
        except OSError as error:
            raise ExecutorError(f"rank {self.rank} lost rank {rank}: {error}") from error

    def average(self, address: int, count: int, stream: int = 0) -> None:
        own = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
        every = np.empty((self.size, count), np.float32)
        sends = [Piece(rank, own.ctypes.data, own.nbytes) for rank in range(self.size)]
        self.swap(sends, [Piece(rank, row.ctypes.data, row.nbytes) for rank, row in enumerate(every)])
        own[...] = every.mean(axis=0)  # in the order of the ranks, so all of them get the same

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()


def _events(outgoing: deque[memoryview], incoming: deque[memoryview]) -> int:
    return (selectors.EVENT_WRITE if outgoing else 0) | (selectors.EVENT_READ if incoming else 0)


def _advance(queue: deque[memoryview], count: int) -> None:
    """Take bytes that were moved off a queue."""
    left = queue.popleft()[count:]
    if left:
        queue.appendleft(left)

"""Ranks as threads of one process, which give each other what they send."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from kontext_trt.runtime.flow.group import Piece
from kontext_trt.runtime.flow.shares import Shares

Given = TypeVar("Given")


class Mailboxes:
    """Holds what is on its way. An exchange ends when all have come to it."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=20)
        self.sent: dict[tuple[int, int], list[bytes]] = {
            (source, target): [] for source in range(size) for target in range(size)
        }


class ThreadGroup:
    """A `Group` whose ranks are threads."""

    def __init__(self, rank: int, size: int, boxes: Mailboxes) -> None:
        self.rank, self.size, self.boxes = rank, size, boxes
        self.shares: Shares | None = None

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        for piece in sends:
            box = self.boxes.sent[self.rank, piece.rank]
            box.append(ctypes.string_at(piece.address, piece.size_bytes))
        self.boxes.barrier.wait()
        for piece in receives:
            data = self.boxes.sent[piece.rank, self.rank].pop(0)
            assert len(data) == piece.size_bytes
            ctypes.memmove(piece.address, data, len(data))
        assert not any(self.boxes.sent[rank, self.rank] for rank in range(self.size)), "all that is sent is received"
        self.boxes.barrier.wait()

    def average(self, address: int, count: int, stream: int = 0) -> None:
        own = np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))
        every = np.empty((self.size, count), np.float32)
        sends = [Piece(rank, address, own.nbytes) for rank in range(self.size)]
        self.swap(sends, [Piece(rank, row.ctypes.data, row.nbytes) for rank, row in enumerate(every)])
        own[...] = every.mean(axis=0)

    def close(self) -> None: ...


def as_ranks(size: int, do: Callable[[ThreadGroup], Given]) -> list[Given]:
    """What `do` returns on each rank; the first error of any is raised."""
    boxes, found = Mailboxes(size), dict[int, Given]()
    raised: list[BaseException] = []

    def rank_of(rank: int) -> None:
        try:
            found[rank] = do(ThreadGroup(rank, size, boxes))
        except BaseException as error:
            raised.append(error)
            boxes.barrier.abort()

    threads = [threading.Thread(target=rank_of, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return [found[rank] for rank in range(size)]

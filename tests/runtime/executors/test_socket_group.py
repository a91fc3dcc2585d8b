"""Ranks that are joined by sockets, as threads of this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kontext_trt import ExecutorError
from kontext_trt.runtime.executors.socket_group import CHUNK_BYTES, SocketGroup
from kontext_trt.runtime.flow.group import Piece

Join = Callable[..., list[SocketGroup]]


@pytest.fixture
def join() -> Iterator[Join]:
    joined: list[SocketGroup] = []

    def make(size: int, timeout_s: float = 30) -> list[SocketGroup]:
        ends: list[dict[int, socket.socket]] = [{} for _ in range(size)]
        for rank in range(size):
            for other in range(rank):
                ends[rank][other], ends[other][rank] = socket.socketpair()
        groups = [SocketGroup(rank, sockets, timeout_s=timeout_s) for rank, sockets in enumerate(ends)]
        joined.extend(groups)
        return groups

    yield make
    for group in joined:
        group.close()


def together(groups: list[SocketGroup], do: Callable[[SocketGroup], object]) -> list[BaseException | None]:
    """What each raised that did it, all at the same time."""
    raised: list[BaseException | None] = [None] * len(groups)

    def one(index: int) -> None:
        try:
            do(groups[index])
        except BaseException as error:
            raised[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(groups))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def piece(rank: int, array: np.ndarray) -> Piece:
    return Piece(rank, array.ctypes.data, array.nbytes)


def drawn(source: int, target: int, number: int, size: int) -> np.ndarray:
    return np.random.default_rng([source, target, number]).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("size", [2, 3])
def test_pieces_arrive_where_they_are_sent_in_their_order(join: Join, size: int):
    """Larger than a socket holds, both ways at once; several for each; none; and one's own."""
    groups = join(size)
    sizes = (3 * CHUNK_BYTES + 5, 0, 1, 70_000)

    def swap(group: SocketGroup) -> None:
        sent = [(to, drawn(group.rank, to, n, count)) for to in range(size) for n, count in enumerate(sizes)]
        received = [(by, n, np.empty(count, np.uint8)) for by in range(size) for n, count in enumerate(sizes)]
        group.swap([piece(to, one) for to, one in sent], [piece(by, one) for by, _, one in received])
        for by, number, one in received:
            assert np.array_equal(one, drawn(by, group.rank, number, one.size))

    for _ in range(2):
        assert together(groups, swap) == [None] * size


def test_one_may_send_and_the_others_receive(join: Join):
    """Then it is not kept until they have."""
    groups, done = join(3), threading.Event()

    def swap(group: SocketGroup) -> None:
        if not group.rank:
            sent = np.arange(10)
            group.swap([piece(1, sent), piece(2, sent)], [])
            done.set()
            return
        assert done.wait(10)
        received = np.zeros(10, np.int64)
        group.swap([], [piece(0, received)])
        assert np.array_equal(received, np.arange(10))

    assert together(groups, swap) == [None] * 3


def test_means_are_the_same_to_the_bit(join: Join):
    groups = join(3)
    values = np.random.default_rng(0).standard_normal((3, 1001)).astype(np.float32)
    values[:, 0] = 1e8, 1, -1e8  # their sum depends on the order
    found = [row.copy() for row in values]
    assert together(groups, lambda group: group.average(found[group.rank].ctypes.data, 1001)) == [None] * 3
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    np.testing.assert_allclose(found[0][1:], values.astype(np.float64).mean(axis=0)[1:], atol=1e-6)


def test_a_rank_that_leaves_is_named(join: Join):
    groups = join(3)
    groups[1].close()
    mine = np.zeros(4, np.float32)
    began = time.monotonic()
    with pytest.raises(ExecutorError, match=r"rank 0 lost rank 1: (it closed its end|.*Broken pipe|.*reset)"):
        groups[0].average(mine.ctypes.data, 4)
    assert time.monotonic() - began < 5


def test_a_rank_that_is_silent_is_named_and_what_came_of_it_is_not_mistaken(join: Join):
    groups = join(3, timeout_s=0.3)
    mine = np.zeros(4, np.float32)
    groups[2]._sockets[0].send(bytes(16))
    with pytest.raises(ExecutorError, match=r"rank 0 exchanged nothing with rank 1 for 0\.3 s"):
        groups[0].average(mine.ctypes.data, 4)
    with pytest.raises(ExecutorError, match="rank 0 failed in an exchange before, and cannot go on"):
        groups[0].average(mine.ctypes.data, 4)


def test_a_rank_that_reads_nothing_is_named(join: Join):
    groups = join(2, timeout_s=0.3)
    large = np.zeros(16 << 20, np.uint8)
    with pytest.raises(ExecutorError, match=r"rank 0 exchanged nothing with rank 1 for 0\.3 s"):
        groups[0].swap([piece(1, large)], [])

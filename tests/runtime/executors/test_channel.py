"""What goes between the processes of a group: arrays in memory that both have mapped, the rest through a socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
from few_descriptors import num_descriptors

from kontext_trt.runtime.executors import channel
from kontext_trt.runtime.executors.channel import Channel, Region, pack

MIB = 1 << 20


@dataclass
class Pair:
    one: Channel
    other: Channel

    def carry(self, value: Any, *, copied: bool = False) -> Any:
        self.one.connection.send_bytes(self.one.written(pack(value)))
        return self.other.receive(copied=copied)

    def held_bytes(self) -> int:
        return os.fstat(self.one._sending.descriptor).st_size


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = num_descriptors()
    ends = [Connection(one.detach()) for one in socket.socketpair()]
    calls, answers = Region(), Region()
    made = Pair(
        Channel(ends[0], sending=calls, receiving=answers),
        Channel(ends[1], sending=Region(os.dup(answers.descriptor)), receiving=Region(os.dup(calls.descriptor))),
    )
    yield made
    for end in (made.one, made.other):
        end.close()
        end.close()
    assert num_descriptors() == before


def ramp(count: int, dtype: type = np.float32) -> np.ndarray:
    return np.arange(count).astype(dtype)


@pytest.mark.parametrize("copied", [False, True])
def test_objects_arrive_as_they_were(pair: Pair, copied: bool):
    whole = ramp(3 * 5 * 7).reshape(3, 5, 7)
    value = {
        "no array": ("text", 1, None),
        "arrays": [ramp(1_000_001), ramp(3, np.uint16), np.float32(3), np.zeros((0, 4)), np.array(2.5)],
        "no copies": [whole[:, 1], whole.T, np.broadcast_to(ramp(3), (2, 3)), whole[1]],
        "bytes": (b"x" * 70_000, bytearray(b"y" * 70_000)),
    }
    for _ in range(2):
        found = pair.carry(value, copied=copied)
        assert found["no array"] == value["no array"]
        assert found["bytes"] == value["bytes"]
        for name in ("arrays", "no copies"):
            for ours, theirs in zip(found[name], value[name], strict=True):
                assert ours.dtype == theirs.dtype
                np.testing.assert_array_equal(ours, theirs)
    assert pair.carry("nothing but words") == "nothing but words"
    assert pair.carry(whole[:0]).shape == (0, 5, 7), "when there is no memory yet, and none is needed"


def test_arrays_go_through_memory_and_not_the_socket(pair: Pair):
    """Nobody reads meanwhile: a socket would hold a part of it, and wait."""
    array = ramp(8 * MIB)
    message = pair.one.written(pack(array))
    assert len(message) < 1000
    pair.one.connection.send_bytes(message)
    np.testing.assert_array_equal(pair.other.receive(copied=False), array)


def test_what_is_not_copied_lies_in_the_memory_and_a_copy_does_not(pair: Pair):
    lying = pair.carry(ramp(4))
    assert pair.carry(ramp(4) + 1).tolist() == [1, 2, 3, 4]
    assert lying.tolist() == [1, 2, 3, 4], "the next message is written over it"
    copy = pair.carry(ramp(4), copied=True)
    pair.carry(ramp(4) + 1)
    assert copy.tolist() == [0, 1, 2, 3]
    copy += 1


def test_both_ways_have_memory_of_their_own(pair: Pair):
    asked = pair.carry(ramp(100))
    pair.other.connection.send_bytes(pair.other.written(pack(asked[::2] * 1)))
    np.testing.assert_array_equal(pair.one.receive(copied=True), ramp(100)[::2])
    np.testing.assert_array_equal(asked, ramp(100))


def test_memory_grows_and_what_was_large_once_is_given_back(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channel, "KEPT_BYTES", 4 * MIB)
    sizes = []
    for mebibytes in (1, 3, 2, 9, 1, 4, 0, 5):
        array = ramp(mebibytes * MIB, np.uint8)
        np.testing.assert_array_equal(pair.carry(array, copied=True), array)
        sizes.append(pair.held_bytes() // MIB)
    assert sizes == [1, 3, 3, 9, 1, 4, 4, 5]
    pair.one.trim()
    assert pair.held_bytes() == 0
    np.testing.assert_array_equal(pair.carry(ramp(5 * MIB, np.uint8)), ramp(5 * MIB, np.uint8))
    pair.carry(ramp(4 * MIB, np.uint8))
    pair.one.trim()
    assert pair.held_bytes() == 4 * MIB, "what few messages take stays"


def test_messages_of_one_size_are_written_to_the_same_memory(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channel, "KEPT_BYTES", 0)
    first = pair.carry(ramp(MIB + 5, np.uint8))
    assert pair.carry(ramp(MIB + 5, np.uint8) + 1)[0] == 1
    assert first[0] == 1


@pytest.mark.parametrize("failing", ["posix_fallocate", "ftruncate", "mmap"])
def test_after_memory_that_was_not_there_the_next_message_is_written_whole(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, failing: str
):
    """Where the memory was made smaller, and could not be mapped again, what is mapped must not be written to."""
    monkeypatch.setattr(channel, "KEPT_BYTES", 0)
    array = ramp(3 * MIB, np.uint8)
    pair.carry(array)

    def fail(*given: object) -> None:
        raise OSError("Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(channel.mmap if failing == "mmap" else os, failing, fail)
        with pytest.raises(MemoryError, match="Cannot allocate memory"):
            pair.one.written(pack(ramp(9)))
    np.testing.assert_array_equal(pair.carry(array), array)


def test_a_message_that_cannot_be_mapped_is_told_and_the_next_one_arrives(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    def fail(*given: object) -> None:
        raise OSError("Too many open files")

    pair.one.connection.send_bytes(pair.one.written(pack(ramp(MIB))))
    with monkeypatch.context() as patched:
        patched.setattr(channel.mmap, "mmap", fail)
        with pytest.raises(MemoryError, match="Too many open files"):
            pair.other.receive(copied=False)
    np.testing.assert_array_equal(pair.carry(ramp(9)), ramp(9))


def test_what_is_closed_gives_no_other_memory(pair: Pair):
    pair.one.connection.send_bytes(pair.one.written(pack(ramp(9))))
    pair.other._receiving.close()
    with pytest.raises(MemoryError, match="closed"):
        pair.other.receive(copied=False)


def test_memory_that_is_forgotten_is_let_go_of():
    before = num_descriptors()
    region = Region()
    assert num_descriptors() == before + 1
    del region
    assert num_descriptors() == before


def test_a_message_that_was_written_and_not_sent_harms_none(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    """As when the call of another rank could not be written."""
    monkeypatch.setattr(channel, "KEPT_BYTES", 0)
    np.testing.assert_array_equal(pair.carry(ramp(MIB)), ramp(MIB))
    for count in (1, MIB):
        pair.one.written(pack(ramp(count) + 1))
    np.testing.assert_array_equal(pair.carry(ramp(MIB)), ramp(MIB))


def test_memory_that_is_not_there_is_told(pair: Pair):
    pair.one._sending.close()
    with pytest.raises(MemoryError):
        pair.one.written(pack(ramp(1)))


def test_what_cannot_be_pickled_is_refused_before_anything_is_written(pair: Pair):
    with pytest.raises((AttributeError, TypeError), match=r"local|pickle"):
        pack((ramp(1), lambda: 1))
    assert pair.held_bytes() == 0


def test_the_end_of_the_other_end_is_told(pair: Pair):
    pair.one.close()
    with pytest.raises((EOFError, OSError)):
        pair.other.receive(copied=True)

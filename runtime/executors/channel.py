"""Carries messages between a group's first process and a rank, with their arrays in memory that both have mapped.

Through a socket alone what a request gives at full size, 13 MB, took 40 ms
(docs/measurements/2026-11-29-h200-four.md).
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ..flow.tensors import aligned

KEPT_BYTES = 64 << 20
"""The most bytes of a region that stay when less is sent: a LoRA's matrices are sent once, and take more."""
_GRAIN = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Holds an object in pickle's words, and apart from them the bytes of its arrays."""

    words: bytes
    arrays: tuple[memoryview, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """Holds what goes through the socket: pickle's words, how long the arrays are, and how large their region is."""

    words: bytes
    lengths: tuple[int, ...]
    region_bytes: int


def pack(value: Any) -> Packed:
    """Return an object as it is sent. Raises what pickle does of one that cannot be."""
    arrays: list[pickle.PickleBuffer] = []
    words = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    return Packed(words=words, arrays=tuple(array.raw() for array in arrays))


class Region:
    """Maps the memory of one direction. It is the sender's while it writes, and the receiver's until it has answered.

    It is anonymous, and lasts as long as a process has it open or mapped.

    Args:
        descriptor: That of the memory, which is closed with this; None for memory that is new.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = -1
        self._mapped: mmap.mmap | None = None
        self.descriptor = os.memfd_create("kontext-trt") if descriptor is None else descriptor

    def put(self, arrays: Sequence[memoryview]) -> int:
        """Write arrays, and return the size of the memory. Raises OSError if there is not enough."""
        lengths = [array.nbytes for array in arrays]
        needed = -(-sum(map(aligned, lengths)) // _GRAIN) * _GRAIN
        if needed > self.held_bytes or self.held_bytes > max(KEPT_BYTES, needed):
            self.free()
            if needed:
                # asked for now, it is an error if it is not there, and no signal later
                os.posix_fallocate(self.descriptor, 0, needed)
            self._map(needed)
        for array, place in zip(arrays, self._places(lengths), strict=True):
            place[:] = array
        return self.held_bytes

    def get(self, lengths: Sequence[int], size_bytes: int) -> list[memoryview]:
        """Return what the other end has written, until the next message. Raises OSError if it cannot be mapped."""
        if size_bytes != self.held_bytes:
            self._map(size_bytes)
        return list(self._places(lengths))

    def free(self) -> None:
        """Give the memory back. The sender may when it has been answered."""
        self._mapped = None  # first: what is mapped beyond the end of the memory must not be touched
        os.ftruncate(self.descriptor, 0)

    @property
    def held_bytes(self) -> int:
        """The size of what is mapped, in bytes."""
        return 0 if self._mapped is None else len(self._mapped)

    def _map(self, size_bytes: int) -> None:
        if self.descriptor < 0:
            raise OSError("it is closed")  # or what is mapped would be other memory
        self._mapped = None
        self._mapped = mmap.mmap(self.descriptor, size_bytes) if size_bytes else None

    def _places(self, lengths: Sequence[int]) -> Iterator[memoryview]:
        whole, offset = memoryview(bytearray() if self._mapped is None else self._mapped), 0
        for length in lengths:
            yield whole[offset : offset + length]
            offset += aligned(length)

    def close(self) -> None:
        """Let go of the memory. Closing twice is allowed."""
        self._mapped = None
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    __del__ = close


class Channel:
    """Sends and receives objects, one at a time each way.

    Args:
        connection: What carries all but arrays, and tells that there is something.
        sending: The memory that this end writes.
        receiving: The memory that the other end writes.
    """

    def __init__(self, connection: Connection, *, sending: Region, receiving: Region) -> None:
        self.connection = connection
        self._sending, self._receiving = sending, receiving

    def written(self, packed: Packed) -> bytes:
        """Write arrays where the other end will find them, and return the message that tells it, which is not sent yet.

        What the other end has been sent before it must have answered.

        Raises:
            MemoryError: There is not enough memory for them.
        """
        try:
            size_bytes = self._sending.put(packed.arrays)
        except OSError as error:
            raise MemoryError(str(error)) from error
        lengths = tuple(array.nbytes for array in packed.arrays)
        return pickle.dumps(_Message(words=packed.words, lengths=lengths, region_bytes=size_bytes))

    def receive(self, *, copied: bool) -> Any:
        """Wait for an object and return it.

        Args:
            copied: Whether its arrays are copies. Otherwise they lie where they were written, and last until this end
                sends something.

        Raises:
            EOFError, OSError: There is no other end any more, or it stopped.
            MemoryError: There is not enough memory, or no descriptor, for the object. The next one can be received.
        """
        message = pickle.loads(self.connection.recv_bytes())
        assert isinstance(message, _Message)
        try:
            places = self._receiving.get(message.lengths, message.region_bytes)
        except OSError as error:
            raise MemoryError(str(error)) from error
        return pickle.loads(message.words, buffers=[bytearray(place) for place in places] if copied else places)

    def trim(self) -> None:
        """Give back memory that few messages take; the other end has answered, or was sent nothing."""
        if self._sending.held_bytes > KEPT_BYTES:
            with suppress(OSError):
                self._sending.free()

    def close(self) -> None:
        """Close the connection, and let go of the memory. Closing twice is allowed."""
        self.connection.close()
        self._sending.close()
        self._receiving.close()

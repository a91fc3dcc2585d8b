"""Defines what several processes that compute one request do together, each with a device of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .shares import Shares


@dataclass(frozen=True, slots=True)
class Piece:
    """Names memory of this rank that goes to, or comes from, a rank: an address and a number of bytes."""

    rank: int
    address: int
    size_bytes: int


class Group(Protocol):
    """Holds a rank's connection to the others. All ranks call the same methods in the same order.

    On a GPU calls are enqueued, on the executor's stream if no other is named, and a CUDA graph may record them; on a
    CPU they are done when they return.

    Attributes:
        rank: The number of this rank, from 0.
        size: The number of ranks.
    """

    rank: int
    size: int

    @property
    def shares(self) -> Shares | None:
        """The tokens of the ranks in the request that runs; None before the first."""
        ...

    @shares.setter
    def shares(self, shares: Shares | None) -> None: ...

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        """Send pieces to ranks, and receive others from them.

        Of two ranks, the pieces that one sends the other are received in the same order, in the same sizes. A rank may
        send pieces to itself. Empty pieces are left out on both sides.
        """
        ...

    def average(self, address: int, count: int, stream: int = 0) -> None:
        """Replace `count` float32 values by their mean over the ranks, the same to the bit on all of them.

        `stream` is the address of the stream that it is enqueued on, as in `swap`; 0 is the executor's.
        """
        ...

    def close(self) -> None:
        """Leave the group; the other ranks may be gone."""
        ...

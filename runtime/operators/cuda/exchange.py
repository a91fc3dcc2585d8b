"""Exchanges what ranks hold around attention: all heads of a rank's own tokens, for all tokens of its own heads.

Before it, each rank sends every other the columns of the other's heads, and afterwards what came of the other's tokens.
Both ways a piece is the rows of a picture; those that a rank receives of a picture lie one after another, so that what
attention reads and writes is (pictures, all tokens, columns) as on one device. What a rank would send itself is copied
straight to that place, or from it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

from ....engine.errors import ExecutorError
from ...device.launch import POINTER
from ...flow.group import Group, Piece
from ...flow.shares import Shares
from .device import KernelDevice
from .enqueuing import Enqueuing
from .sizes import aligned

UNIT = 16
"""The bytes that a thread copies."""
_SENT, _RECEIVED = "sent", "received"
"""The places of scratch memory that pieces are sent from and received in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """Describes a tensor (pictures, tokens, heads) whose tokens ranks share.

    Attributes:
        pictures: How many there are.
        tokens: How many of a picture each rank holds.
        columns: The bytes of one rank's heads, for each token.
    """

    pictures: int
    tokens: tuple[int, ...]
    columns: int

    @property
    def all_tokens(self) -> int:
        """The tokens of a picture on all ranks."""
        return sum(self.tokens)

    @property
    def whole_bytes(self) -> int:
        """The bytes of all tokens of one rank's heads."""
        return self.pictures * self.all_tokens * self.columns

    def rows(self, rank: int) -> int:
        """Return the tokens of all pictures that a rank holds."""
        return self.pictures * self.tokens[rank]

    def own_bytes(self, rank: int) -> int:
        """Return the bytes of a rank's tokens in all heads."""
        return self.rows(rank) * self.columns * len(self.tokens)

    def by_heads(self, rank: int, address: int) -> list[Piece]:
        """Return the pieces of a rank's own tokens: (ranks, pictures, tokens, columns) from an address on."""
        size = self.tokens[rank] * self.columns
        return [
            Piece(other, address + (other * self.pictures + picture) * size, size)
            for picture in range(self.pictures)
            for other in range(len(self.tokens))
        ]

    def own_address(self, rank: int, address: int) -> int:
        """Return where a rank's first token lies among those of all ranks, which are from an address on."""
        return address + sum(self.tokens[:rank]) * self.columns

    def by_tokens(self, address: int) -> list[Piece]:
        """Return the pieces of the tokens of all ranks: (pictures, all tokens, columns) from an address on."""
        firsts = list(accumulate(self.tokens, initial=0))
        return [
            Piece(other, address + (picture * self.all_tokens + firsts[other]) * self.columns, count * self.columns)
            for picture in range(self.pictures)
            for other, count in enumerate(self.tokens)
        ]


def divided_tokens(
    shares: Shares | None, rank: int, queries: int, keys: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how many queries and keys each rank has, where this one has so many of them.

    Queries are the joint sequence's, or the target's alone.

    Raises:
        ExecutorError: The tokens are not those that the ranks have shared out, or could be either's.
    """
    if shares is None:
        raise ExecutorError("the ranks of this group have not been told which tokens each holds")
    joint, target = shares.joint, shares.target
    if keys != joint[rank] or queries not in (joint[rank], target[rank]):
        raise ExecutorError(
            f"rank {rank} has {queries} queries and {keys} keys of a picture; of its {joint[rank]} tokens, "
            f"{target[rank]} are of the target, and queries are all of them or those, keys all"
        )
    if joint != target and any(map(int.__eq__, joint, target)):  # asked of all ranks, so that all of them refuse
        raise ExecutorError(
            f"a rank has no tokens but the target's ({joint} in all, {target} of the target), and cannot tell the last "
            "block from the others; take fewer ranks"
        )
    return (joint if queries == joint[rank] else target), joint


class Exchange:
    """Exchanges tokens for heads in a group.

    Args:
        device: The rank's device.
        group: The ranks.
    """

    def __init__(self, device: KernelDevice, group: Group) -> None:
        self.group, self._device = group, device
        self.lane = device.lane("exchange")
        """The lane that `gather` is best enqueued on, where something else can run meanwhile."""

    def compile(self) -> None:
        """Compile what it launches."""
        for packing in (False, True):
            self._device.function("exchange", PACKING=packing)

    def average(self, to: Enqueuing, address: int, count: int) -> None:
        """Enqueue the mean of float32 values over the ranks."""
        to.enqueue(partial(self.group.average, address, count, to.stream_address))

    def gather(self, to: Enqueuing, tensors: Sequence[int], layouts: Sequence[Divided]) -> list[int]:
        """Enqueue that each rank gets all tokens of its heads.

        Args:
            to: What remembers it.
            tensors: The addresses of queries, keys and values (pictures, tokens, all heads), contiguous.
            layouts: What each of them is.

        Returns:
            The addresses of (pictures, all tokens, a rank's heads); they stay until the next of `gather` and `scatter`.
        """
        rank, device = self.group.rank, self._device
        sent = _places(partial(device.scratch, place=_SENT), [one.own_bytes(rank) for one in layouts])
        received = _places(partial(device.scratch, place=_RECEIVED), [one.whole_bytes for one in layouts])
        sends = [piece for one, at in zip(layouts, sent, strict=True) for piece in one.by_heads(rank, at)]
        receives = [piece for one, at in zip(layouts, received, strict=True) for piece in one.by_tokens(at)]
        self._copy(to, tensors, sent, received, layouts, packing=True)
        to.enqueue(partial(self.group.swap, self._others(sends), self._others(receives), to.stream_address))
        return received

    def places(self, *layouts: Divided) -> list[int]:
        """Return the addresses of memory for what `scatter` sends and what that is made of, once `gather` is joined."""
        return _places(partial(self._device.scratch, place=_SENT), [one.whole_bytes for one in layouts])

    def scatter(self, to: Enqueuing, mixed: int, layout: Divided, result: int, stride: int) -> None:
        """Enqueue that each rank gets its tokens in all heads.

        Args:
            to: What remembers it.
            mixed: The address of (pictures, all tokens, a rank's heads).
            layout: What it is.
            result: Where (pictures, tokens, all heads) goes.
            stride: The bytes from one row of the result to the next.
        """
        rank = self.group.rank
        back = self._device.scratch(layout.own_bytes(rank), _RECEIVED)
        sends, receives = self._others(layout.by_tokens(mixed)), self._others(layout.by_heads(rank, back))
        to.enqueue(partial(self.group.swap, sends, receives, to.stream_address))
        nothing = replace(layout, tokens=(0,) * self.group.size)
        layouts = layout, nothing, nothing
        self._copy(to, (result, 0, 0), (back, 0, 0), (mixed, 0, 0), layouts, packing=False, stride=stride)

    def _others(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Return the pieces that go to other ranks, or come from them."""
        return [piece for piece in pieces if piece.rank != self.group.rank]

    def _copy(
        self,
        to: Enqueuing,
        tensors: Sequence[int],
        pieces: Sequence[int],
        wholes: Sequence[int],
        layouts: Sequence[Divided],
        *,
        packing: bool,
        stride: int = 0,
    ) -> None:
        """Enqueue copies between three tensors and their pieces, of which the rank's own lie among all tokens."""
        first, other, _ = layouts
        rank, ranks, units = self.group.rank, self.group.size, first.columns // UNIT
        owns = [one.own_address(rank, at) for one, at in zip(layouts, wholes, strict=True)]
        packs = (first.rows(rank) + 2 * other.rows(rank)) * ranks * units
        to.launch(
            self._device.function("exchange", PACKING=packing),
            -(-packs // 256),
            256,
            (
                *((address, POINTER) for address in (*tensors, *pieces, *owns)),
                *((one.tokens[rank], ctypes.c_longlong) for one in (first, other)),
                *((one.all_tokens, ctypes.c_longlong) for one in (first, other)),
                *((count, ctypes.c_int) for count in (first.pictures, rank, ranks, units)),
                (stride // UNIT or ranks * units, ctypes.c_longlong),
            ),
        )


def _places(allocate: Callable[[int], int], sizes: Sequence[int]) -> list[int]:
    """Return addresses in one piece of memory, one after another."""
    *firsts, total = accumulate(map(aligned, sizes), initial=0)
    start = allocate(total)
    return [start + first for first in firsts]

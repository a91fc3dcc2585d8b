"""A silent rank exchanges what is not recorded, and of what is recorded nothing but its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from kontext_trt.benchmarks.bench.silent_rank import Silent
from kontext_trt.runtime.flow.group import Piece
from kontext_trt.runtime.flow.shares import Shares, divide


@dataclass
class Heard:
    """Notes what it is asked for."""

    rank: int = 0
    size: int = 2
    shares: Shares | None = None
    calls: list[Any] = field(default_factory=list)

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        self.calls.append((list(sends), list(receives), stream))

    def average(self, address: int, count: int, stream: int = 0) -> None:
        self.calls.append((address, count, stream))

    def close(self) -> None:
        self.calls.append("closed")


def test_what_is_recorded_is_left_out():
    heard, device = Heard(), SimpleNamespace(recording=False)
    silent = Silent(heard, cast("Any", device))
    sends, receives = [Piece(0, 1, 8), Piece(1, 2, 8)], [Piece(0, 3, 8), Piece(1, 4, 8)]
    silent.swap(sends, receives, 7)
    silent.average(5, 3, 9)
    assert heard.calls == [(sends, receives, 7), (5, 3, 9)]
    heard.calls.clear()
    device.recording = True
    silent.swap(sends, receives, 7)
    silent.average(5, 3)
    assert heard.calls == [(sends[:1], receives[:1], 7)]


def test_it_is_the_same_rank_with_the_same_shares():
    heard = Heard(rank=1)
    silent = Silent(heard, cast("Any", SimpleNamespace(recording=False)))
    assert (silent.rank, silent.size, silent.shares) == (1, 2, None)
    silent.shares = shares = divide(8, 4, 4, 2)
    assert heard.shares is shares is silent.shares
    silent.close()
    assert heard.calls == ["closed"]

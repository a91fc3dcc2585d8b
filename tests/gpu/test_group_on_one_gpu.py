"""Ranks in threads, all on one GPU, compute what it computes of all tokens: the kernels of the exchange without NCCL.

`python tests/gpu/test_group_on_one_gpu.py [RANKS]` prints the table. What ranks send each other is copied on the device
by their own streams, and no graph records it.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / folder) for folder in (".links", "tests/support")]

import numpy as np
import pytest
from shared_operators import Rank, is_right, joined, words

from kontext_trt.engine.system.gpus import find_gpus
from kontext_trt.runtime.device.cuda import CudaPython
from kontext_trt.runtime.flow.group import Piece
from kontext_trt.runtime.flow.shares import Shares

pytestmark = pytest.mark.gpu


class Meeting:
    """What the threads leave for each other; `meet` returns when all have come."""

    def __init__(self, ranks: int) -> None:
        self.left: list[Any] = [None] * ranks
        self._barrier = threading.Barrier(ranks, timeout=60)
        self.meet, self.abandon = self._barrier.wait, self._barrier.abort


class Threads:
    """A group of threads on one device, each with a stream of its own."""

    def __init__(self, rank: int, cuda: CudaPython, stream: Any, meeting: Meeting) -> None:
        self.rank, self.size = rank, len(meeting.left)
        self.shares: Shares | None = None
        self._cuda, self._stream, self._meeting = cuda, stream, meeting
        self._ready, self._done = cuda.event(), cuda.event()

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        cuda, meeting, on = self._cuda, self._meeting, stream or self._stream
        cuda.record(self._ready, on)
        meeting.left[self.rank] = [piece for piece in sends if piece.size_bytes], self._ready, self._done
        meeting.meet()
        taken: dict[int, int] = defaultdict(int)
        for piece in receives:
            if not piece.size_bytes:
                continue
            sent, ready, _ = meeting.left[piece.rank]
            theirs = [one for one in sent if one.rank == self.rank][taken[piece.rank]]
            taken[piece.rank] += 1
            assert theirs.size_bytes == piece.size_bytes
            cuda._call("cudaStreamWaitEvent", on, ready, 0)
            cuda.copy(piece.address, theirs.address, piece.size_bytes, on)
        for rank, (sent, _, _) in enumerate(meeting.left):
            assert taken[rank] == sum(one.rank == self.rank for one in sent), "something was sent that nobody receives"
        cuda.record(self._done, on)
        meeting.meet()
        for _, _, done in meeting.left:  # nobody writes where another still reads
            cuda._call("cudaStreamWaitEvent", on, done, 0)
        meeting.meet()

    def average(self, address: int, count: int, stream: int = 0) -> None:
        own, on = np.empty(count, np.float32), stream or self._stream
        self._copy(own.ctypes.data, address, own.nbytes, on)
        self._meeting.left[self.rank] = own
        self._meeting.meet()
        mean = np.mean(self._meeting.left, axis=0, dtype=np.float32)
        self._meeting.meet()
        self._copy(address, mean.ctypes.data, mean.nbytes, on)

    def _copy(self, to: int, source: int, size_bytes: int, stream: Any) -> None:
        self._cuda.copy(to, source, size_bytes, stream)
        self._cuda.synchronize(stream)

    def close(self) -> None:
        """Do nothing."""


def run(ranks: int) -> list[dict[str, Any]]:
    """Compute every case with ranks in threads; return its rows, or raise what one of them said."""
    meeting, failed = Meeting(ranks), list[str]()
    rows: list[list[dict[str, Any]]] = [[] for _ in range(ranks)]

    def compute(number: int) -> None:
        try:
            cuda = CudaPython(0)
            stream = cuda.stream()
            rank = Rank(cuda, stream, Threads(number, cuda, stream, meeting))
            rows[number] += (rank.run(case, recorded=False) for case in rank.cases())
        except BaseException:
            failed.append(traceback.format_exc())
            meeting.abandon()

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(failed[0])
    return [joined(of) for of in zip(*rows, strict=True)]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_on_one_gpu_compute_what_it_computes(ranks: int) -> None:
    gpus, reason = find_gpus()
    if not gpus:
        pytest.skip(f"needs a GPU: {reason}")
    rows = run(ranks)
    assert len(rows) > 30
    assert [words(row) for row in rows if not is_right(row)] == []


if __name__ == "__main__":
    table = run(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    print("\n".join(map(words, table)))
    sys.exit(not all(map(is_right, table)))

"""Ranks record, replay and enqueue together, whatever one of them has lost; over simulated devices, in threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from simulated_cuda import SimulatedCuda, Stream
from thread_ranks import Mailboxes, ThreadGroup, as_ranks

from kontext_trt.runtime.device.agreement import MAX_FLAGS, Agreement


class StreamGroup(ThreadGroup):
    """Averages when a simulated stream comes to it."""

    def __init__(self, rank: int, boxes: Mailboxes, cuda: SimulatedCuda, stream: Stream) -> None:
        super().__init__(rank, 2, boxes)
        self._cuda, self._stream = cuda, stream

    def average(self, address: int, count: int, stream: int = 0) -> None:
        assert not self._cuda.recording
        self._cuda.enqueue(partial(super().average, address, count), self._stream)


@pytest.fixture
def ranks(simulate: Callable[..., Any]) -> tuple[Any, Any]:
    """Two simulations that agree before each job."""
    boxes = Mailboxes(2)

    def rank(number: int) -> Any:
        return simulate(join=lambda cuda, stream: StreamGroup(number, boxes, cuda, stream))

    return rank(0), rank(1)


def ask(ranks: tuple[Any, Any]) -> list[Counter[str]]:
    """Let both make the same picture, and return the calls of each."""

    def request(group: ThreadGroup) -> tuple[list, Counter[str]]:
        before = ranks[group.rank].cuda.calls.copy()
        return ranks[group.rank].latents(), ranks[group.rank].cuda.calls - before

    (one, calls), (other, other_calls) = as_ranks(2, request)
    assert one == other
    return [calls, other_calls]


def done(calls: list[Counter[str]]) -> list[str]:
    """What each did."""
    return ["recorded" if one["instantiate"] else "replayed" if one["launch"] else "enqueued" for one in calls]


def test_flags_hold_if_they_do_on_every_rank():
    def asked(group: ThreadGroup) -> list[list[bool]]:
        cuda = SimulatedCuda()
        stream = cuda.stream()
        agreement = Agreement(cuda, stream, StreamGroup(group.rank, group.boxes, cuda, stream))
        found = [agreement.all_of([True, group.rank == 0, group.rank == 1, False]), agreement.all_of([True] * 64)]
        assert agreement.all_of([]) == []
        with pytest.raises(ValueError, match="65 flags are more than 64"):
            agreement.all_of([True] * (MAX_FLAGS + 1))
        for _ in range(2):
            agreement.close()
        assert cuda.allocated == 0
        return found

    assert as_ranks(2, asked) == [[[True, False, False, False], [True] * 64]] * 2


def test_they_enqueue_record_and_replay_together(ranks: tuple[Any, Any]):
    assert [done(ask(ranks)) for _ in range(4)] == [
        [what] * 2 for what in ("enqueued", "recorded", "replayed", "replayed")
    ]


def test_what_one_has_dropped_all_enqueue_and_then_record_anew(ranks: tuple[Any, Any]):
    """As after a network of one was loaded again."""
    for _ in range(3):
        ask(ranks)
    ranks[1].executor._graphs.drop()
    assert done(ask(ranks)) == ["enqueued"] * 2
    assert done(ask(ranks)) == ["recorded"] * 2
    assert done(ask(ranks)) == ["replayed"] * 2
    assert [one.graphs for one in ranks] == [1, 1]


def test_what_one_cannot_record_all_enqueue(ranks: tuple[Any, Any], caplog: pytest.LogCaptureFixture):
    ask(ranks)
    ranks[1].cuda.fail("end_capture", code="cudaErrorStreamCaptureInvalidated")
    first, second = ask(ranks)
    assert (first["instantiate"], second["instantiate"]) == (1, 0)
    assert first["launch"] == second["launch"] == 0
    assert [one.graphs for one in ranks] == [0, 0]
    assert "cannot be recorded in a CUDA graph" in caplog.text
    assert done(ask(ranks)) == ["enqueued"] * 2


def test_stages_that_one_may_not_record_are_a_job_of_their_own_on_all(ranks: tuple[Any, Any]):
    ranks[0].executor._loaded.keep_out_of_graphs(("vae_decoder",))
    for _ in range(2):
        ask(ranks)
    assert [call["launch"] for call in ask(ranks)] == [1, 1]
    assert [
        [len(job.stages) for job in one.executor._graphs.of(shape)]
        for one in ranks
        for shape in one.executor._workspaces
    ] == [[4]] * 2

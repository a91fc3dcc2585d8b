"""Work in a thread: cancelled by who waits, and never two at once."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from kontext_trt.serving import work
from kontext_trt.serving.refusals import Refusal
from kontext_trt.serving.work import SMALL, Worker, beside, watched


async def never() -> dict:
    await asyncio.sleep(60)
    raise AssertionError("not within this test")


def test_who_is_cancelled_waits_until_the_thread_has_ended():
    async def body() -> None:
        worker, ended, started = Worker(), threading.Event(), threading.Event()

        def work(cancel: threading.Event) -> None:
            started.set()
            assert cancel.wait(10)
            time.sleep(0.05)
            ended.set()
            raise ValueError("nobody sees this")

        task = asyncio.create_task(worker.run(work))
        await asyncio.to_thread(started.wait)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # a second time changes nothing
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
        assert await worker.run(lambda cancel: "next") == "next"
        worker.close()

    asyncio.run(body())


def test_work_that_ends_in_time_is_returned():
    async def work() -> str:
        return "done"

    assert asyncio.run(watched(work(), never, 5)) == "done"


def test_the_works_own_error_comes_through():
    async def work() -> str:
        raise Refusal("no", status=404)

    with pytest.raises(Refusal, match="no"):
        asyncio.run(watched(work(), None, 5))


@pytest.mark.parametrize(
    ("receive", "seconds", "status", "words"),
    [("gone", 5.0, 499, "the client went away"), ("there", 0.02, 504, "it took longer than 0.02 s, waiting included")],
)
def test_work_nobody_waits_for_is_cancelled(receive: str, seconds: float, status: int, words: str):
    cancelled: list[bool] = []

    async def work() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def gone() -> dict:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    with pytest.raises(Refusal, match=words) as caught:
        asyncio.run(watched(work(), gone if receive == "gone" else never, seconds))
    assert caught.value.status == status
    assert cancelled == [True]


def test_a_client_is_answered_although_what_it_asked_for_does_not_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(work, "ENDING_SECONDS", 0.05)
    let_go = threading.Event()

    def hang(cancel: threading.Event) -> None:
        assert let_go.wait(10)
        raise ValueError("nobody sees this")

    async def body() -> None:
        worker = Worker()
        with pytest.raises(Refusal, match=r"longer than 0\.02 s") as caught:
            await watched(worker.run(hang), None, 0.02)
        assert caught.value.status == 504
        assert len(work._ending) == 1
        let_go.set()
        assert await worker.run(lambda cancel: "next") == "next"
        await asyncio.sleep(0)
        assert not work._ending
        worker.close()

    asyncio.run(body())


def test_only_what_is_large_goes_to_a_thread():
    async def body() -> None:
        assert await beside(1000, threading.get_ident) == threading.get_ident()
        assert await beside(SMALL + 1, threading.get_ident) != threading.get_ident()

    asyncio.run(body())

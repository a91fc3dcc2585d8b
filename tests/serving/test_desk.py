"""The desk where pictures wait for a person: decisions, time, room, and that nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from PIL import Image

from kontext_trt.engine.errors import ContentRefused
from kontext_trt.serving.desk import Desk
from kontext_trt.serving.metrics import Metrics
from kontext_trt.serving.options import Review
from kontext_trt.serving.refusals import Refusal

PICTURE = Image.new("RGB", (8, 8))


def desk(**options: Any) -> tuple[Desk, Metrics]:
    metrics = Metrics()
    return Desk(Review(**options), metrics), metrics


def counted(metrics: Metrics, decision: str) -> float:
    return metrics.registry.get_sample_value("kontext_reviews_total", {"decision": decision}) or 0


async def put(waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.ensure_future(waiting)
    for _ in range(3):
        await asyncio.sleep(0)
    return task


def test_a_picture_is_handed_out_once_all_of_its_request_are_approved() -> None:
    async def go() -> None:
        held, metrics = desk()
        task = await put(held.approve([(PICTURE, "one"), (PICTURE, "two")]))
        assert [case.prompt for case in held.cases] == ["one", "two"]
        held.decide(held.cases[0].name, approved=True)
        await asyncio.sleep(0)
        assert not task.done()
        held.decide(held.cases[0].name, approved=True)
        await task
        assert (held.cases, counted(metrics, "approved")) == ((), 2)

    asyncio.run(go())


def test_one_that_is_refused_takes_the_others_along() -> None:
    async def go() -> None:
        held, metrics = desk()
        task = await put(held.approve([(PICTURE, "one"), (PICTURE, "two")]))
        name = held.cases[1].name
        held.decide(name, approved=False)
        with pytest.raises(ContentRefused, match="a person refused it") as caught:
            await task
        assert (caught.value.stage, caught.value.failed, held.cases) == ("output picture", False, ())
        assert (counted(metrics, "refused"), counted(metrics, "withdrawn")) == (1, 1)
        for again in (lambda: held.decide(name, approved=True), lambda: held.case("x")):
            with pytest.raises(Refusal, match="there is no such picture") as lost:
                again()
            assert lost.value.status == 404

    asyncio.run(go())


def test_nobody_waits_for_ever_and_not_too_many_wait() -> None:
    async def go() -> None:
        held, metrics = desk(seconds=0.05, places=1)
        first = await put(held.approve([(PICTURE, "one")]))
        with pytest.raises(ContentRefused, match="1 pictures wait for a person, and that is the most") as caught:
            await held.approve([(PICTURE, "two")])
        assert caught.value.failed
        with pytest.raises(ContentRefused, match=r"nobody looked at it within 0\.05 s"):
            await first
        assert (held.cases, counted(metrics, "expired"), counted(metrics, "full")) == ((), 1, 1)

    asyncio.run(go())


def test_who_goes_away_takes_the_picture_along() -> None:
    async def go() -> None:
        held, metrics = desk()
        task = await put(held.approve([(PICTURE, "one")]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (held.cases, counted(metrics, "withdrawn")) == ((), 1)

    asyncio.run(go())

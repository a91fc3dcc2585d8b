"""The desk where pictures wait for a person, in memory and in files: decisions, time, room, and that nothing stays."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt.engine.errors import ContentRefused
from kontext_trt.serving import filed_desk
from kontext_trt.serving.desk import Desk
from kontext_trt.serving.filed_desk import FiledDesk
from kontext_trt.serving.metrics import Metrics
from kontext_trt.serving.options import Review
from kontext_trt.serving.refusals import Refusal
from kontext_trt.serving.state import StateFolder

PICTURE = Image.new("RGB", (8, 6), (1, 2, 3))
Opened = Callable[..., tuple[Desk, Metrics]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filed_desk, "LOOK_SECONDS", 0.01)


def in_files(folder: Path, **options: Any) -> tuple[FiledDesk, Metrics]:
    metrics = Metrics()
    return FiledDesk(Review(**options), metrics, StateFolder(folder)), metrics


@pytest.fixture(params=["memory", "files"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    def in_memory(**options: Any) -> tuple[Desk, Metrics]:
        metrics = Metrics()
        return Desk(Review(**options), metrics), metrics

    return in_memory if request.param == "memory" else lambda **options: in_files(tmp_path / "state", **options)


def counted(metrics: Metrics, decision: str) -> float:
    return metrics.registry.get_sample_value("kontext_reviews_total", {"decision": decision}) or 0


async def put(desk: Desk, waiting: Coroutine[Any, Any, None], count: int = 1) -> asyncio.Task[None]:
    task = asyncio.ensure_future(waiting)
    while len(await desk.cases()) != count:
        assert not task.done()
        await asyncio.sleep(0)
    return task


def left(folder: Path) -> list[Path]:
    """The files of pictures and decisions."""
    return [path for kind in ("review", "approved", "refused") for path in (folder / kind).glob("[!.]*")]


def test_a_picture_is_handed_out_once_all_of_its_request_are_approved(opened: Opened) -> None:
    async def go() -> None:
        held, metrics = opened()
        start = time.time()
        task = await put(held, held.approve([(PICTURE, "one\ntwo"), (PICTURE, "three")]), 2)
        first, second = await held.cases()
        assert {first.prompt, second.prompt} == {"one\ntwo", "three"}
        assert (first.width, first.height) == (8, 6)
        assert start <= first.since <= time.time()
        shown = Image.open(io.BytesIO(await held.picture(first.name)))
        assert np.array_equal(np.asarray(shown), np.asarray(PICTURE))
        await held.decide(first.name, approved=True)
        await asyncio.sleep(0.05)
        assert not task.done()
        await held.decide(second.name, approved=True)
        await task
        assert (len(held), counted(metrics, "approved")) == (0, 2)

    asyncio.run(go())


def test_one_that_is_refused_takes_the_others_along(opened: Opened) -> None:
    async def go() -> None:
        held, metrics = opened()
        task = await put(held, held.approve([(PICTURE, "one"), (PICTURE, "two")]), 2)
        name = (await held.cases())[1].name
        await held.decide(name, approved=False)
        with pytest.raises(ContentRefused, match="a person refused it") as caught:
            await task
        assert (caught.value.stage, caught.value.failed, len(held)) == ("output picture", False, 0)
        assert (counted(metrics, "refused"), counted(metrics, "withdrawn")) == (1, 1)
        for again in (held.decide(name, approved=True), held.picture(name), held.picture("x")):
            with pytest.raises(Refusal, match="there is no such picture") as lost:
                await again
            assert lost.value.status == 404

    asyncio.run(go())


def test_nobody_waits_for_ever_and_not_too_many_wait(opened: Opened) -> None:
    async def go() -> None:
        held, metrics = opened(seconds=0.3, places=1)
        first = await put(held, held.approve([(PICTURE, "one")]))
        with pytest.raises(ContentRefused, match="1 pictures wait for a person, and that is the most") as caught:
            await held.approve([(PICTURE, "two")])
        assert caught.value.failed
        with pytest.raises(ContentRefused, match=r"nobody looked at it within 0\.3 s"):
            await first
        assert (len(held), counted(metrics, "expired"), counted(metrics, "full")) == (0, 1, 1)

    asyncio.run(go())


def test_who_goes_away_takes_the_picture_along(opened: Opened, tmp_path: Path) -> None:
    async def go() -> None:
        held, metrics = opened()
        task = await put(held, held.approve([(PICTURE, "one")]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        early = asyncio.ensure_future(held.approve([(PICTURE, "two")]))
        for _ in range(3):  # in files it is being written now
            await asyncio.sleep(0)
        early.cancel()
        with pytest.raises(asyncio.CancelledError):
            await early
        assert (len(held), left(tmp_path / "state"), counted(metrics, "withdrawn")) == (0, [], 2)

    asyncio.run(go())


def test_another_process_shows_and_decides(tmp_path: Path) -> None:
    async def go() -> None:
        here, metrics = in_files(tmp_path)
        there, others = in_files(tmp_path)
        task = await put(here, here.approve([(PICTURE, "one")]))
        (case,) = await there.cases()
        assert Image.open(io.BytesIO(await there.picture(case.name))).size == PICTURE.size
        await there.decide(case.name, approved=True)
        with pytest.raises(Refusal, match="there is no such picture"):
            await here.decide(case.name, approved=False)
        await task
        assert (counted(metrics, "approved"), counted(others, "approved")) == (1, 0)
        assert left(tmp_path) == []

    asyncio.run(go())


def test_what_was_decided_is_empty_and_a_decision_of_the_last_moment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        held, metrics = in_files(tmp_path, seconds=0.5)
        monkeypatch.setattr(filed_desk, "LOOK_SECONDS", 1e9)  # it looks at the end alone
        task = await put(held, held.approve([(PICTURE, "one")]))
        (case,) = await held.cases()
        await held.decide(case.name, approved=False)
        (file,) = left(tmp_path)
        assert (file.parent.name, file.stat().st_size) == ("refused", 0), "what was refused is not kept"
        with pytest.raises(ContentRefused, match="a person refused it"):
            await task
        assert (left(tmp_path), counted(metrics, "refused")) == ([], 1)

    asyncio.run(go())


def test_the_pictures_of_a_process_that_ended_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        held, metrics = in_files(tmp_path)
        monkeypatch.setattr(filed_desk, "SIGN_SECONDS", 0.0)
        task = await put(held, held.approve([(PICTURE, "one")]))
        (case,) = await held.cases()
        (file,) = left(tmp_path)
        past = time.time() - filed_desk.LOST_SECONDS - 1
        os.utime(file, (past, past))
        while not await held.cases():  # its process says that it waits
            await asyncio.sleep(0.01)
        monkeypatch.setattr(filed_desk, "SIGN_SECONDS", 60.0)
        await asyncio.sleep(0.1)
        os.utime(file, (past, past))
        assert await held.cases() == ()
        with pytest.raises(Refusal, match="there is no such picture"):
            await held.decide(case.name, approved=True)
        held.expire()
        with pytest.raises(ContentRefused, match="its file is gone, and nobody has decided") as caught:
            await task
        assert (caught.value.failed, left(tmp_path), counted(metrics, "failed")) == (True, [], 1)

    asyncio.run(go())

"""Turns: a bounded number of requests, rounds over clients, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kontext_trt.serving.refusals import Refusal
from kontext_trt.serving.turns import Place, Turns


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def take(turns: Turns, client: str, name: str, order: list[str], pictures: int = 1) -> None:
    with turns.admit(client) as place:
        for _ in range(pictures):
            async with place.turn():
                order.append(name)
                await asyncio.sleep(0)


async def held(turns: Turns) -> tuple[asyncio.Event, asyncio.Task]:
    """Somebody has the turn until the event is set."""
    go_on = asyncio.Event()

    async def hold() -> None:
        with turns.admit("holder") as place:
            async with place.turn():
                await go_on.wait()

    task = asyncio.create_task(hold())
    await settle()
    assert turns.running
    return go_on, task


def run(body: Callable) -> None:
    asyncio.run(body())


def test_clients_take_turns_in_rounds():
    async def body() -> None:
        turns, order = Turns(20), []
        go_on, holder = await held(turns)
        waiting = [asyncio.create_task(take(turns, "a", f"a{number}", order)) for number in range(4)]
        await settle()
        waiting += [asyncio.create_task(take(turns, "b", f"b{number}", order)) for number in range(2)]
        await settle()
        assert turns.waiting == 6
        go_on.set()
        await asyncio.gather(holder, *waiting)
        assert order == ["a0", "b0", "a1", "b1", "a2", "a3"]
        assert (turns.waiting, turns.admitted, turns.running) == (0, 0, False)

    run(body)


def test_a_request_for_several_pictures_lets_others_in_between():
    async def body() -> None:
        turns, order = Turns(20), []
        await asyncio.gather(take(turns, "a", "many", order, pictures=3), take(turns, "b", "one", order))
        assert order == ["many", "one", "many", "many"]

    run(body)


def test_beyond_the_most_a_request_is_refused_with_when_to_come_again():
    async def body() -> None:
        turns, order = Turns(2), []
        go_on, holder = await held(turns)
        waiting = [asyncio.create_task(take(turns, "a", "x", order)) for _ in range(2)]
        await settle()
        with pytest.raises(Refusal, match="3 requests run or wait, and that is the most; try again in") as caught:
            turns.admit("b")
        assert caught.value.status == 429
        assert 1 <= int(caught.value.headers["retry-after"]) <= 60
        go_on.set()
        await asyncio.gather(holder, *waiting)
        with turns.admit("b"):
            assert turns.admitted == 1

    run(body)


def test_the_advised_wait_is_a_minute_at_most():
    turns = Turns(0)
    turns._mean_seconds = 1000.0
    with turns.admit("a"), pytest.raises(Refusal, match="try again in 60 s"):
        turns.admit("b")


def test_who_leaves_the_queue_is_forgotten():
    async def body() -> None:
        turns, order = Turns(20), []
        go_on, holder = await held(turns)
        leaver = asyncio.create_task(take(turns, "a", "leaver", order))
        stayer = asyncio.create_task(take(turns, "a", "stayer", order))
        await settle()
        leaver.cancel()
        await settle()
        assert turns.waiting == 1
        go_on.set()
        await asyncio.gather(holder, stayer)
        assert order == ["stayer"]
        assert turns.admitted == 0

    run(body)


def test_a_turn_that_comes_to_somebody_who_has_just_left_goes_on():
    async def body() -> None:
        turns, order = Turns(20), []
        go_on, holder = await held(turns)
        leaver = asyncio.create_task(take(turns, "a", "leaver", order))
        stayer = asyncio.create_task(take(turns, "b", "stayer", order))
        await settle()
        go_on.set()
        turns._pass_on()  # the leaver's turn has come, and it has not noticed
        leaver.cancel()
        await asyncio.gather(holder, stayer)
        assert order == ["stayer"]
        assert not turns.running

    run(body)


def test_draining_sends_waiting_requests_away_and_lets_begun_ones_end():
    async def body() -> None:
        turns, order = Turns(20), []
        begun: list[Place] = []
        go_on = asyncio.Event()

        async def twice() -> None:
            with turns.admit("a") as place:
                begun.append(place)
                async with place.turn():
                    await go_on.wait()
                async with place.turn():
                    order.append("second picture")

        first = asyncio.create_task(twice())
        await settle()
        waiting = asyncio.create_task(take(turns, "b", "waiting", order))
        await settle()
        turns.drain()
        with pytest.raises(Refusal, match="this server is stopping; ask another one") as caught:
            await waiting
        assert caught.value.status == 503
        with pytest.raises(Refusal, match="stopping"):
            turns.admit("c")
        go_on.set()
        await first
        assert order == ["second picture"]
        assert begun[0].held_seconds > 0

    run(body)

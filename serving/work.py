"""Does the work of one request at a time in a thread, and ends it when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from starlette.types import Receive

from .refusals import Refusal

Made = TypeVar("Made")

ENDING_SECONDS = 2.0
"""The seconds that cancelled work has to end; then its client is answered although it has not."""

SMALL = 1 << 17
"""The bytes or pixels that are worked on in the event loop, which others wait for: a few milliseconds."""


class Worker:
    """Runs calls that compute in one thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kontext")

    async def run(self, work: Callable[[threading.Event], Made]) -> Made:
        """Call a function in the thread, with an event that is set when the caller is cancelled.

        It returns or raises once the function has ended, whatever happens: nobody else is let in before.
        """
        cancel = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._thread, work, cancel)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancel.set()
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            future.exception()  # it is seen, so that nobody warns of it
            raise

    def close(self) -> None:
        """End the thread, after what it does."""
        self._thread.shutdown()


async def beside(size: int, function: Callable[..., Made], *arguments: Any) -> Made:
    """Call a function that takes as long as its input is large: in a thread, unless that would take longer.

    Args:
        size: The bytes or pixels of the input.
        function: What to call.
        *arguments: What it is called with.
    """
    if size <= SMALL:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


async def watched(work: Coroutine[Any, Any, Made], receive: Receive | None, seconds: float) -> Made:
    """Wait for work until it is done, its client has gone away, or its time is up; the last two cancel it.

    What is cancelled usually ends at once, or with the step that is computed. It goes on alone where it does not, and
    keeps its turn.

    Args:
        work: What is to be done; it is cancelled as tasks are.
        receive: The request's messages, whose body has been read; None if nobody waits at the other end.
        seconds: The time that it has.

    Raises:
        Refusal: The client has gone (499), or the time is up (504).
    """
    task = asyncio.ensure_future(work)
    waiting: set[asyncio.Future[Any]] = {task}
    gone = None if receive is None else asyncio.ensure_future(_until_gone(receive))
    if gone is not None:
        waiting.add(gone)
    try:
        done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
    finally:
        for one in waiting:
            one.cancel()
            _ending.add(one)
            one.add_done_callback(_ended)
        await asyncio.wait(waiting, timeout=ENDING_SECONDS)
    if done:
        raise Refusal("the client went away", status=499)
    raise Refusal(
        f"it took longer than {seconds:g} s, waiting included, which is the most here; ask for less, or later",
        status=504,
    )


_ending: set[asyncio.Future[Any]] = set()
"""The work that was cancelled and has not ended: a loop holds its tasks weakly."""


def _ended(one: asyncio.Future[Any]) -> None:
    _ending.discard(one)
    if not one.cancelled():
        one.exception()  # it is seen, so that nobody warns of it


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

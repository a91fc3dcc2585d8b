"""Lets requests wait for their turn: a bounded number, one turn per client in a round, one picture per turn."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .refusals import Refusal

MAX_RETRY_SECONDS = 60
"""The longest wait in seconds that is advised: OpenAI's client does not retry at all beyond 120."""


class Turns:
    """Gives turns, one at a time. Everything happens in one event loop, so there are no locks.

    A request is admitted once and takes a turn per picture, so that one for ten pictures lets others in between.
    Clients that wait take turns in rounds, whatever each has waiting.

    Args:
        waiting: The number of requests that may wait while one runs.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting + 1
        self._queues: OrderedDict[str, deque[tuple[asyncio.Future[None], bool]]] = OrderedDict()
        self._taken = False
        self._mean_seconds = 1.0
        self.admitted = 0
        self.draining = False

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a turn."""
        return sum(map(len, self._queues.values()))

    @property
    def running(self) -> bool:
        """True if somebody has the turn."""
        return self._taken

    def admit(self, client: str) -> Place:
        """Admit a request. The place is to be left: it is a context manager.

        Raises:
            Refusal: As many wait as may (429), or the server stops (503).
        """
        if self.draining:
            raise _stopping()
        if self.admitted >= self._most:
            seconds = min(max(math.ceil(self._mean_seconds * self.admitted), 1), MAX_RETRY_SECONDS)
            raise Refusal(
                f"{self.admitted} requests run or wait, and that is the most; try again in {seconds} s",
                status=429,
                headers={"retry-after": str(seconds)},
            )
        self.admitted += 1
        return Place(self, client)

    @asynccontextmanager
    async def turn(self, client: str, *, begun: bool) -> AsyncIterator[None]:
        """Wait for a turn, and keep it until the context ends. One that has begun is not sent away by `drain`."""
        if self._taken or self._queues:
            await self._wait(client, begun=begun)
        self._taken = True
        start = time.monotonic()
        try:
            yield
        finally:
            self._mean_seconds += 0.2 * (time.monotonic() - start - self._mean_seconds)
            self._pass_on()

    async def _wait(self, client: str, *, begun: bool) -> None:
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append((came, begun))
        try:
            await came
        except asyncio.CancelledError:
            if (
                came.done() and not came.cancelled() and came.exception() is None
            ):  # its turn came, and nobody is there to take it
                self._pass_on()
            else:
                self._forget(client, came)
            raise

    def _forget(self, client: str, came: asyncio.Future[None]) -> None:
        queue = self._queues.get(client, deque())
        kept = deque(one for one in queue if one[0] is not came)
        if kept:
            self._queues[client] = kept
        else:
            self._queues.pop(client, None)

    def _pass_on(self) -> None:
        """Give the turn to the next client of the round, which then stands at its end."""
        while self._queues:
            client, queue = self._queues.popitem(last=False)
            came, _ = queue.popleft()
            if queue:
                self._queues[client] = queue
            if not came.done():
                came.set_result(None)
                self._taken = True
                return
        self._taken = False

    def drain(self) -> None:
        """Admit nobody any more, and send away who waits for a first turn."""
        self.draining = True
        for client, queue in list(self._queues.items()):
            for came, begun in list(queue):
                if not begun:
                    self._forget(client, came)
                    if not came.done():
                        came.set_exception(_stopping())


class Place:
    """Holds one admitted request's place: `turn` waits for its turn, as often as it makes pictures.

    It is a context manager, and leaving it lets another request in.

    Attributes:
        waited_seconds: The seconds that it waited for its turns.
        held_seconds: The seconds that its turns took.
    """

    def __init__(self, turns: Turns, client: str) -> None:
        self._turns, self._client, self._begun = turns, client, False
        self.waited_seconds = 0.0
        self.held_seconds = 0.0

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._turns.admitted -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it until the context ends.

        Raises:
            Refusal: The server stops before the first turn.
        """
        asked = time.monotonic()
        async with self._turns.turn(self._client, begun=self._begun):
            self._begun, start = True, time.monotonic()
            self.waited_seconds += start - asked
            try:
                yield
            finally:
                self.held_seconds += time.monotonic() - start


def _stopping() -> Refusal:
    return Refusal("this server is stopping; ask another one, or ask again when it is back", status=503)

"""Keeps pictures that a person is to look at in files, so that the page of each of several processes shows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from PIL import Image

from .desk import Case, Desk, no_case, refused
from .metrics import Metrics
from .options import Review
from .pictures import encode_picture
from .state import Shelf, StateFolder

LOST_SECONDS = 60.0
"""The seconds without a sign from its process after which nobody waits for a picture any more."""
SIGN_SECONDS = 15.0
"""The seconds between two of those signs."""
LOOK_SECONDS = 0.25
"""The seconds between two looks at what was decided."""

Done = TypeVar("Done")


class FiledDesk(Desk):
    """Holds the pictures that wait as `Desk` does, in files; each process with the same folder may decide.

    A decision moves a picture's file from one shelf to another and empties it, so of several decisions one counts, and
    none after the picture was withdrawn. The process whose client waits looks for that.

    Args:
        review: How many wait at most, in all processes together, and for how long.
        metrics: Where the decisions about this process's pictures are counted.
        folder: The folder of state.
    """

    def __init__(self, review: Review, metrics: Metrics, folder: StateFolder) -> None:
        super().__init__(review, metrics)
        self._shelf = folder.shelf("review")
        self._decided_shelves = {True: folder.shelf("approved"), False: folder.shelf("refused")}

    def __len__(self) -> int:
        return len(self._shelf)

    async def cases(self) -> tuple[Case, ...]:
        """Return the pictures that wait, the oldest first."""
        heads = await asyncio.to_thread(self._shelf.first_lines, LOST_SECONDS)
        return tuple(sorted(map(_case, heads), key=lambda case: case.since))

    async def picture(self, name: str) -> bytes:
        """Return a picture that waits, as PNG. Raises Refusal (404) if none of that name does."""
        data = await asyncio.to_thread(self._shelf.read, name, LOST_SECONDS)
        if data is None:
            raise no_case()
        return data.partition(b"\n")[2]

    async def decide(self, name: str, *, approved: bool) -> None:
        """Decide about a picture. Raises Refusal (404) if none of that name waits."""
        if not await asyncio.to_thread(self._move, name, self._decided_shelves[approved]):
            raise no_case()

    def _move(self, name: str, to: Shelf) -> bool:
        return self._shelf.first_line(name, LOST_SECONDS) is not None and self._shelf.move(name, to)

    async def _enter(self, case: Case, image: Image.Image) -> bool:
        return await _to_its_end(self._put, case, image)

    def _put(self, case: Case, image: Image.Image) -> bool:
        data = msgspec.json.encode(case) + b"\n" + encode_picture(image, "png", 100)
        self.expire()
        with self._shelf.locked():
            if len(self._shelf) >= self._review.places:
                return False
            self._shelf.write(case.name, data)
        return True

    async def _decided(self, case: Case) -> bool | None:
        now = time.monotonic()
        end, sign = now + self._review.seconds, now + SIGN_SECONDS
        while now < end:
            await asyncio.sleep(min(LOOK_SECONDS, end - now))
            if not await asyncio.to_thread(self._waits, case.name):
                return await asyncio.to_thread(self._decision, case.name)
            now = time.monotonic()
            if now >= sign:
                await asyncio.to_thread(self._shelf.touch, case.name)
                sign = now + SIGN_SECONDS
        if await asyncio.to_thread(self._shelf.remove, case.name):
            return None
        return await asyncio.to_thread(self._decision, case.name)  # of the last moment

    def _waits(self, name: str) -> bool:
        return self._shelf.first_line(name, float("inf")) is not None

    def _decision(self, name: str) -> bool:
        """Return what was decided about a picture that does not wait any more."""
        for approved, shelf in self._decided_shelves.items():
            if shelf.identity(name) is not None:
                return approved
        raise refused("its file is gone, and nobody has decided", failed=True)

    async def _leave(self, case: Case) -> None:
        await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(self._remove, case.name)))

    def _remove(self, name: str) -> None:
        for shelf in (self._shelf, *self._decided_shelves.values()):
            shelf.remove(name)

    def expire(self) -> None:
        """Remove the pictures of processes that have ended, and decisions that nobody waits for."""
        for shelf in (self._shelf, *self._decided_shelves.values()):
            shelf.trim(LOST_SECONDS)


def _case(line: bytes) -> Case:
    return msgspec.json.decode(line, type=Case)


async def _to_its_end(function: Callable[..., Done], *arguments: object) -> Done:
    """Call a function in a thread, and wait until it has ended, even if the caller is cancelled."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise

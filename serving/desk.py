"""Keeps pictures that were made until a person has looked at them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image
from prometheus_client import Counter

from ..engine.errors import ContentRefused
from ..runtime.filters.interface import Stage
from .metrics import Metrics
from .options import Review
from .pictures import encode_picture
from .refusals import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Describes a picture that waits for a decision.

    Attributes:
        name: The name that it is decided by, which nobody can guess.
        prompt: What it was made from.
        width: Its width in pixels.
        height: Its height in pixels.
        since: The time at which it came, in seconds since 1970.
    """

    name: str
    prompt: str = field(repr=False)
    width: int
    height: int
    since: float


class Desk:
    """Holds the pictures that wait, in memory. Everything happens in one event loop, so there are no locks.

    Args:
        review: How many wait at most, and for how long.
        metrics: Where decisions are counted.
    """

    def __init__(self, review: Review, metrics: Metrics) -> None:
        self._review = review
        self._held: dict[str, tuple[Case, Image.Image, asyncio.Future[bool]]] = {}
        self._decisions = Counter(
            "kontext_reviews",
            "Pictures that a person was to look at, by what became of them.",
            ("decision",),
            registry=metrics.registry,
        )

    def __len__(self) -> int:
        return len(self._held)

    async def cases(self) -> tuple[Case, ...]:
        """Return the pictures that wait, the oldest first."""
        return tuple(case for case, _, _ in self._held.values())

    async def picture(self, name: str) -> bytes:
        """Return a picture that waits, as PNG. Raises Refusal (404) if none of that name does."""
        if name not in self._held:
            raise no_case()
        return await asyncio.to_thread(encode_picture, self._held[name][1], "png", 100)

    async def decide(self, name: str, *, approved: bool) -> None:
        """Decide about a picture. Raises Refusal (404) if none of that name waits."""
        if name not in self._held:
            raise no_case()
        decided = self._held.pop(name)[2]
        if decided.done():  # it waited too long, or who waited has gone, a moment ago
            raise no_case()
        decided.set_result(approved)

    def expire(self) -> None:
        """Let go of what nobody waits for any more; in memory there is nothing such."""

    async def approve(self, pictures: Sequence[tuple[Image.Image, str]]) -> None:
        """Wait until a person has approved of all pictures, each given with its prompt.

        Raises:
            ContentRefused: One was refused, nobody decided in time, or as many wait as may.
        """
        waiting = [asyncio.ensure_future(self._approve(image, prompt)) for image, prompt in pictures]
        try:
            await asyncio.gather(*waiting)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _approve(self, image: Image.Image, prompt: str) -> None:
        case = Case(
            name=secrets.token_urlsafe(18), prompt=prompt, width=image.width, height=image.height, since=time.time()
        )
        decision = "failed"
        try:
            if not await self._enter(case, image):
                decision = "full"
                raise refused(f"{self._review.places} pictures wait for a person, and that is the most", failed=True)
            approved = await self._decided(case)
            if approved is None:
                decision = "expired"
                raise refused(f"nobody looked at it within {self._review.seconds:g} s", failed=False)
            decision = "approved" if approved else "refused"
            if not approved:
                raise refused("a person refused it", failed=False)
        except asyncio.CancelledError:
            decision = "withdrawn"
            raise
        finally:
            self._decisions.labels(decision).inc()
            await self._leave(case)

    async def _enter(self, case: Case, image: Image.Image) -> bool:
        """Let a picture wait; return False if as many do as may."""
        if len(self._held) >= self._review.places:
            return False
        self._held[case.name] = case, image, asyncio.get_running_loop().create_future()
        return True

    async def _decided(self, case: Case) -> bool | None:
        """Wait for a decision, and return it; None if nobody decided in time."""
        try:
            return await asyncio.wait_for(self._held[case.name][2], self._review.seconds)
        except asyncio.TimeoutError:
            return None

    async def _leave(self, case: Case) -> None:
        """Forget a picture. It is done once it was called, even if the caller is cancelled."""
        self._held.pop(case.name, None)


def no_case() -> Refusal:
    """Return what is said where no picture of a name waits."""
    return Refusal("there is no such picture: it was decided, or nobody waits for it any more", status=404)


def refused(reason: str, *, failed: bool) -> ContentRefused:
    """Return what is raised for a picture that a person did not approve of."""
    stage = Stage.OUTPUT.value
    return ContentRefused(f"the {stage} was refused by the filter 'review': {reason}", "review", stage, failed)

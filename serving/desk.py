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
from .refusals import Refusal


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """Holds a picture that waits for a decision.

    Attributes:
        name: The name that it is decided by, which nobody can guess.
        image: The picture.
        prompt: What it was made from.
        since: The time of the monotonic clock at which it came.
        decided: The decision: whether it may be handed out.
    """

    name: str
    image: Image.Image = field(repr=False)
    prompt: str = field(repr=False)
    since: float
    decided: asyncio.Future[bool] = field(repr=False)


class Desk:
    """Holds the pictures that wait. Everything happens in one event loop, so there are no locks.

    Args:
        review: How many wait at most, and for how long.
        metrics: Where decisions are counted.
    """

    def __init__(self, review: Review, metrics: Metrics) -> None:
        self._review = review
        self._cases: dict[str, Case] = {}
        self._decisions = Counter(
            "kontext_reviews",
            "Pictures that a person was to look at, by what became of them.",
            ("decision",),
            registry=metrics.registry,
        )

    @property
    def cases(self) -> tuple[Case, ...]:
        """The pictures that wait, the oldest first."""
        return tuple(self._cases.values())

    def case(self, name: str) -> Case:
        """Return a picture that waits. Raises Refusal (404) if none of that name does."""
        if name not in self._cases:
            raise Refusal("there is no such picture: it was decided, or nobody waits for it any more", status=404)
        return self._cases[name]

    def decide(self, name: str, *, approved: bool) -> None:
        """Decide about a picture. Raises Refusal (404) if none of that name waits."""
        self._cases.pop(self.case(name).name).decided.set_result(approved)

    async def approve(self, pictures: Sequence[tuple[Image.Image, str]]) -> None:
        """Wait until a person has approved of all pictures, each given with its prompt.

        Raises:
            ContentRefused: One was refused, nobody decided in time, or as many wait as may.
        """
        waiting = [asyncio.ensure_future(self._wait(image, prompt)) for image, prompt in pictures]
        try:
            await asyncio.gather(*waiting)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _wait(self, image: Image.Image, prompt: str) -> None:
        if len(self._cases) >= self._review.places:
            self._decisions.labels("full").inc()
            raise _refused(f"{self._review.places} pictures wait for a person, and that is the most", failed=True)
        decided: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        case = Case(name=secrets.token_urlsafe(18), image=image, prompt=prompt, since=time.monotonic(), decided=decided)
        self._cases[case.name] = case
        decision = "withdrawn"
        try:
            approved = await asyncio.wait_for(decided, self._review.seconds)
            decision = "approved" if approved else "refused"
        except asyncio.TimeoutError:
            decision = "expired"
            raise _refused(f"nobody looked at it within {self._review.seconds:g} s", failed=False) from None
        finally:
            self._cases.pop(case.name, None)
            self._decisions.labels(decision).inc()
        if not approved:
            raise _refused("a person refused it", failed=False)


def _refused(reason: str, *, failed: bool) -> ContentRefused:
    stage = Stage.OUTPUT.value
    return ContentRefused(f"the {stage} was refused by the filter 'review': {reason}", "review", stage, failed)

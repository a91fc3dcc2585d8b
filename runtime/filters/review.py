"""Lets a person decide which pictures are handed out."""

from __future__ import annotations

import time
from typing import Protocol

from ...engine.errors import OptionError
from .interface import ALLOWED, Content, Stage, Verdict

SECONDS = 600.0
"""The seconds that a picture waits for a person, if nobody says otherwise."""
_SLICE_SECONDS = 0.2


class Ticket(Protocol):
    """Holds the place of one picture in a queue of pictures that are to be looked at."""

    def wait(self, seconds: float, /) -> bool | None:
        """Wait for a decision: True approves, False refuses, None is none yet."""
        ...

    def withdraw(self) -> None:
        """Take the picture out of the queue, and forget it. Doing so twice is allowed."""
        ...


class ReviewQueue(Protocol):
    """Keeps pictures until somebody has looked at them. Implementations bound how many there are."""

    def submit(self, content: Content, /) -> Ticket:
        """Put a picture into the queue. Raises if it is full, which refuses the picture."""
        ...


class ManualReview:
    """Refuses pictures that no person has approved.

    The request waits until somebody has decided, for some time, or until it is cancelled. Afterwards the picture is out
    of the queue in any case.

    Args:
        queue: Where pictures wait, and are looked at.
        seconds: The seconds that a picture waits; then it is refused.

    Raises:
        OptionError: `seconds` is not above 0.
    """

    def __init__(self, queue: ReviewQueue, *, seconds: float = SECONDS) -> None:
        if not seconds > 0:
            raise OptionError(f"a review's seconds must be above 0, not {seconds!r}")
        self.name, self.stages = "review", frozenset({Stage.OUTPUT})
        self._queue, self._seconds = queue, float(seconds)

    def check(self, content: Content) -> Verdict:
        ticket, end = self._queue.submit(content), time.monotonic() + self._seconds
        try:
            while (left := end - time.monotonic()) > 0:
                if content.cancel is not None and content.cancel.is_set():
                    break
                decision = ticket.wait(min(left, _SLICE_SECONDS))
                if decision is not None:
                    return ALLOWED if decision is True else Verdict(allowed=False, reason="a person refused it")
        finally:
            ticket.withdraw()
        return Verdict(allowed=False, reason=f"nobody looked at it within {self._seconds:g} s")

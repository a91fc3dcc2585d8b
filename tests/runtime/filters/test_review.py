"""Manual review: who is waited for, for how long, and that nothing stays in the queue."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from kontext_trt import Content, ManualReview, OptionError, Stage
from kontext_trt.engine.errors import Cancelled, ContentRefused
from kontext_trt.runtime.filters.screen import Screen

PICTURE = Image.new("RGB", (8, 8))


class Desk:
    """A queue of one, whose decision is known beforehand, or never made."""

    def __init__(self, decision: object, *, full: bool = False) -> None:
        self.decision, self.full = decision, full
        self.held: list[Content] = []

    def submit(self, content: Content) -> Desk:
        if self.full:
            raise RuntimeError("full")
        self.held.append(content)
        return self

    def wait(self, seconds: float) -> object:
        threading.Event().wait(0 if self.decision is not None else min(seconds, 0.01))
        return self.decision

    def withdraw(self) -> None:
        self.held.clear()


@pytest.mark.parametrize(
    ("decision", "allowed", "reason"),
    [
        (True, True, ""),
        (False, False, "a person refused it"),
        ("yes", False, "a person refused it"),
        (None, False, "nobody looked at it within 0.1 s"),
    ],
)
def test_a_picture_waits_for_a_person(decision: object, allowed: bool, reason: str) -> None:
    desk = Desk(decision)
    verdict = ManualReview(desk, seconds=0.1).check(Content(stage=Stage.OUTPUT, prompt="x", picture=PICTURE))
    assert (verdict.allowed, verdict.reason, desk.held) == (allowed, reason, [])


def test_a_full_queue_refuses() -> None:
    with pytest.raises(ContentRefused, match="it failed, which refuses"):
        Screen([ManualReview(Desk(True, full=True))]).release([("x", PICTURE)])


def test_who_cancels_takes_the_picture_back() -> None:
    desk, cancel = Desk(None), threading.Event()
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(Cancelled):
        Screen([ManualReview(desk, seconds=30)]).release([("x", PICTURE)], cancel)
    assert desk.held == []


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_is_no_review(seconds: float) -> None:
    with pytest.raises(OptionError, match="seconds must be above 0"):
        ManualReview(Desk(True), seconds=seconds)

"""What computes is looked after once its request is cancelled, and neither before that nor afterwards."""

from __future__ import annotations

import threading
import time

import pytest

from kontext_trt.runtime import cancelling
from kontext_trt.runtime.cancelling import after_cancel, cancelled_by


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cancelling, "SECONDS_BETWEEN_LOOKS", 0.01)


def test_it_is_looked_at_from_the_cancel_until_that_is_enough():
    cancel, enough, seen = threading.Event(), threading.Event(), list[float]()

    def look(seconds: float) -> bool:
        seen.append(seconds)
        if len(seen) == 3:
            enough.set()
        return enough.is_set()

    with cancelled_by(cancel), after_cancel(look):
        time.sleep(0.1)
        assert seen == []
        cancel.set()
        assert enough.wait(10)
        time.sleep(0.1)
    assert len(seen) == 3
    assert 0 <= seen[0] < seen[1] < seen[2]


def test_what_ends_or_fails_is_looked_at_no_more():
    cancel, seen = threading.Event(), list[float]()
    with pytest.raises(ValueError, match="its own"), cancelled_by(cancel), after_cancel(lambda seconds: False):
        raise ValueError("its own")
    with cancelled_by(cancel), after_cancel(lambda seconds: bool(seen.append(seconds))):
        pass
    cancel.set()
    time.sleep(0.1)
    assert seen == []
    assert "kontext-cancel" not in [thread.name for thread in threading.enumerate()]


def test_what_nothing_cancels_has_no_thread():
    before = threading.active_count()
    with cancelled_by(threading.Event()), cancelled_by(None), after_cancel(lambda seconds: True):
        assert threading.active_count() == before
    with after_cancel(lambda seconds: True):
        assert threading.active_count() == before

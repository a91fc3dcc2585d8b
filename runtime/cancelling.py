"""Lets whoever computes a part of a request look after it once the request is cancelled: it may never end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SECONDS_BETWEEN_LOOKS = 0.25
"""The seconds between two looks at whether a request is cancelled, and then at what computes."""

_cancel: ContextVar[threading.Event | None] = ContextVar("cancel", default=None)


@contextmanager
def cancelled_by(cancel: threading.Event | None) -> Iterator[None]:
    """Say for as long as the context lasts which event cancels the request that this thread runs; None for none."""
    token = _cancel.set(cancel)
    try:
        yield
    finally:
        _cancel.reset(token)


@contextmanager
def after_cancel(look: Callable[[float], bool]) -> Iterator[None]:
    """Call a function, on another thread, while the context goes on although this thread's request is cancelled.

    Args:
        look: What is called a few times per second with the seconds since it was cancelled, until it returns True.
    """
    cancel, ended = _cancel.get(), threading.Event()
    if cancel is None:
        yield
        return
    watching = threading.Thread(target=_watch, args=(cancel, ended, look), name="kontext-cancel", daemon=True)
    try:
        watching.start()
        yield
    finally:
        ended.set()
        watching.join()


def _watch(cancel: threading.Event, ended: threading.Event, look: Callable[[float], bool]) -> None:
    cancelled_at: float | None = None
    while not ended.wait(SECONDS_BETWEEN_LOOKS):
        if cancel.is_set():
            cancelled_at = time.monotonic() if cancelled_at is None else cancelled_at
            if look(time.monotonic() - cancelled_at):
                return

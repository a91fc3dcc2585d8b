"""Raises what a kernel raised whole, where ONNX Runtime makes a text of it."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Kept:
    """Keeps what kernels raised until whoever called ONNX Runtime asks for it.

    Which run a kernel is called for, ONNX Runtime does not say, and it may call it on a thread of its own. But the text
    of a kernel's status comes back in what that run raises. So each exception goes by a word that is in the text, and
    no run gets another's. What nobody asks for, such as the second failure in a run, goes when no call is left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._errors: dict[str, BaseException] = {}

    def begin(self) -> None:
        with self._lock:
            self._calls += 1

    def end(self) -> None:
        with self._lock:
            self._calls -= 1
            if not self._calls:
                self._errors.clear()

    def add(self, error: BaseException) -> str:
        with self._lock:
            word = secrets.token_hex(8)
            if self._calls:
                self._errors[word] = error
        return word

    def take(self, words: str) -> BaseException | None:
        with self._lock:
            return next((self._errors.pop(word) for word in list(self._errors) if word in words), None)


_kept = _Kept()


def failure_text(operator: str, error: BaseException) -> str:
    """Return the text that a kernel's exception has in ONNX Runtime; `raising_whole` knows the exception by it."""
    return f"{operator}: {type(error).__name__}: {error} [{_kept.add(error)}]"


@contextmanager
def raising_whole() -> Iterator[None]:
    """Raise what a kernel raised instead of ONNX Runtime's error, around the making of a session or a run.

    It is the same object, with its traceback, its cause and its context, KeyboardInterrupt and SystemExit included. An
    error that no kernel raised passes. A signal that ends the process or the call is handled when ONNX Runtime
    returns, not before.
    """
    _kept.begin()
    error: BaseException | None = None
    try:
        with signals_later():
            try:
                yield
            except Exception as raised:  # ONNX Runtime has an exception type per status code
                error = _kept.take(str(raised))
                if error is None:
                    raise
                logger.debug("raised instead of: %s", raised)
    finally:
        _kept.end()
    if error is not None:
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # Python has put ONNX Runtime's error there


@contextmanager
def signals_later() -> Iterator[None]:
    """Leave signals until ONNX Runtime has returned.

    Python handles them where it next runs: that is at the first instruction of a kernel's callback, before any `try`,
    where ctypes drops what is raised and the run goes on. Python does so on the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: dict[int, FrameType | None] = {}
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    try:
        for number in _ENDING:
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, came.__setitem__)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in came.items():
            handlers[number](number, frame)

"""Lets one thread at a time use what is opened once: others wait for their turn, or are refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..engine.errors import BusyError, Cancelled, KontextError
from .cancelling import cancelled_by
from .executors.options import WhenBusy

SECONDS_BETWEEN_LOOKS = 0.02
"""The seconds between two looks at whether a request that waits for its turn is cancelled."""


class Admission:
    """Admits one thread at a time, until it is closed.

    Attributes:
        closed: Whether nobody is admitted any more; who closes sets it.
    """

    def __init__(self, when_busy: WhenBusy) -> None:
        self._when_busy = when_busy
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread that is inside
        self._process = os.getpid()
        self.closed = False

    def is_forked(self) -> bool:
        """Return whether this process was forked off since; what is held is the other's."""
        return self._process != os.getpid()

    @contextmanager
    def enter(self, *, closing: bool = False, cancel: threading.Event | None = None) -> Iterator[None]:
        """Admit the calling thread for as long as the context lasts; `cancel` ends the waiting, and is told within.

        Raises:
            KontextError: It is closed, this is a forked process, or a request's own callback asks.
            BusyError: Another thread is inside, and a second one is refused.
            Cancelled: The request was cancelled while it waited.
        """
        if self.is_forked():
            raise KontextError(
                f"this Kontext was opened by process {self._process}, and its libraries do not survive a fork; open "
                f"the bundle after forking, in process {os.getpid()} itself"
            )
        if self._owner == threading.get_ident():
            raise KontextError("a request's on_step must not call the Kontext that is serving it")
        if closing or self._when_busy is WhenBusy.WAIT:
            while not self._lock.acquire(timeout=-1 if cancel is None else SECONDS_BETWEEN_LOOKS):
                if cancel is not None and cancel.is_set():
                    raise Cancelled("cancelled while another request was running")
        elif not self._lock.acquire(blocking=False):
            raise BusyError("another thread's request is running, and this Kontext was opened to refuse a second one")
        try:
            if self.closed and not closing:
                raise KontextError("this Kontext is closed; open the bundle again")
            self._owner = threading.get_ident()
            with cancelled_by(cancel):
                yield
        finally:
            self._owner = None
            self._lock.release()

"""Locks files between processes; the kernel holds the locks, so a process that dies lets go.

Files are given by their descriptors, which are closed when a lock ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def exclusive(descriptor: int, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file alone; `on_wait` is called once if another process has it."""
    try:
        if not _try(descriptor, fcntl.LOCK_EX):
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_if_free(descriptor: int) -> Iterator[bool]:
    """Hold a file alone if nobody has it or uses it, and say whether it is held."""
    try:
        yield _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def hold_shared(descriptor: int) -> bool:
    """Mark an open file as in use until it is closed; return False if someone is about to delete it."""
    return _try(descriptor, fcntl.LOCK_SH)


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

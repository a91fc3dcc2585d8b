"""Locks files between processes; the kernel holds the locks, so a process that dies lets go."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path` alone; `on_wait` is called once if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not _try(descriptor, fcntl.LOCK_EX):
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_if_free(path: Path, *, create: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` alone if nobody has it, and say whether it is held.

    Without `create` nothing is written: a file that is missing is nobody's.
    """
    if not create and not path.exists():
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    how = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    descriptor = os.open(path, how | os.O_CLOEXEC, 0o666)
    try:
        yield _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def hold_shared(descriptor: int) -> bool:
    """Mark an open file as in use until it is closed; return False if someone is about to delete it."""
    return _try(descriptor, fcntl.LOCK_SH)


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Say whether nobody uses a file; while the block runs, nobody can begin to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

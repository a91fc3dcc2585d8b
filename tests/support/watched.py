"""A folder that nobody may touch, watched by the kernel: also what native libraries do in it is seen."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_EVENTS = {
    0x001: "read",
    0x002: "written",
    0x004: "attributes changed",
    0x020: "opened",
    0x040: "moved away",
    0x080: "moved here",
    0x100: "made",
    0x200: "deleted",
}
_HEAD = struct.Struct("iIII")


class Watch:
    """Collects what happens in folders; `seen` empties it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._folders: dict[int, Path] = {}

    def add(self, folder: Path) -> None:
        mask = sum(_EVENTS)
        watch = _LIBC.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self._folders[watch] = folder

    def seen(self) -> list[str]:
        """What happened since, in words; opening a folder to list it counts."""
        happened: list[str] = []
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return happened
        while data:
            watch, mask, _, length = _HEAD.unpack_from(data)
            name = data[_HEAD.size : _HEAD.size + length].rstrip(b"\0").decode()
            words = [text for bit, text in _EVENTS.items() if mask & bit]
            happened.append(f"{self._folders.get(watch)}/{name} {', '.join(words)}")
            data = data[_HEAD.size + length :]
        return happened


@contextmanager
def watched(*folders: Path) -> Iterator[Watch]:
    descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        watch = Watch(descriptor)
        for folder in folders:
            watch.add(folder)
        yield watch
    finally:
        os.close(descriptor)

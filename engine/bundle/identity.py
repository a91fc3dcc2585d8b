"""Tells whether a file is still the one that was opened.

A name may get another file, and a file that has several names may be written through any of them. What tells is the
file's number, size and time of its last change; not the time at which its status changed, since one more name alters
that.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Says which file it is, and in which state."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def change(self, now: FileIdentity) -> str:
        """Say how the file is another one now; "" if it is not."""
        if (now.device, now.inode) != (self.device, self.inode):
            return "is another file than when the bundle was opened"
        if now != self:
            return "was written to since the bundle was opened"
        return ""


class HeldFiles:
    """Holds files open that a library has mapped, and sees whether they change.

    A mapped file that is written to changes results, and one that is cut short ends the process. One that is only
    replaced does neither: what is mapped is held.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files: list[tuple[Path, int, FileIdentity]] = []
        descriptors: list[int] = []
        self._close = weakref.finalize(self, _close_all, descriptors)  # also for whoever forgets
        for path in paths:
            descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            self._files.append((path, descriptors[-1], FileIdentity.of(os.fstat(descriptors[-1]))))

    def check(self) -> None:
        """Raise BundleError if one of them was written to."""
        for path, descriptor, identity in self._files:
            change = identity.change(FileIdentity.of(os.fstat(descriptor)))
            if change:
                raise BundleError(f"{path} {change}, and its weights are in use; open the bundle again")

    def close(self) -> None:
        """Let go of the files. Closing twice is allowed."""
        self._files = []
        self._close()


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

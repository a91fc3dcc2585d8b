"""Tells what writing files changes beside them: which file gives way, which folder is made, and whether it can be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def telling_changes(paths: Iterable[Path], tell: Callable[[str], None]) -> Iterator[None]:
    """Run a block that writes files, and tell afterwards in a line each what gave way and which folder is new.

    What did not happen is not told, be it that the block raises.

    Args:
        paths: The files, or folders, that the block writes.
        tell: A function that is called with "made folder out/a" or "replaced out.png".
    """
    before = {path: _state(path) for path in dict.fromkeys(paths)}
    missing = dict.fromkeys(path.parent for path in before if not path.parent.exists())
    try:
        yield
    finally:
        for folder in missing:
            if folder.is_dir():
                tell(f"made folder {folder}")
        for path, state in before.items():
            if state is not None and _state(path) not in (None, state):
                tell(f"replaced {path}")


def try_place(path: Path) -> None:
    """Try whether a file can be made at a path, missing folders included; nothing is left behind.

    Raises:
        OSError, ValueError: None can.
    """
    place = path.resolve() if os.path.islink(path) else path
    made = [folder for folder in place.parents if not folder.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    tempfile.NamedTemporaryFile(dir=place.parent, prefix=".kontext-trt.").close()
    if place.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    with suppress(FileNotFoundError):
        place.lstat()  # raises for a name that no file can have
    with suppress(OSError):  # somebody else put something there meanwhile
        for folder in made:
            folder.rmdir()


def is_same_file(path: Path, other: Path) -> bool:
    """Return whether two paths lead to one file that there is, by whatever links and spellings."""
    with suppress(OSError, ValueError):  # one is not there, or has a name that no file can have
        return os.path.samefile(path, other)
    return False


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what differs once something else lies at a path, None if nothing does."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns

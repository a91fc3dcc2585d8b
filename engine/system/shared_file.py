"""Shares a file that several processes read and replace: what one adds, the next keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .files import atomic_file
from .locks import exclusive


def read_shared(path: Path) -> bytes:
    """Return the file's bytes, or none if there is no such file yet."""
    return path.read_bytes() if path.is_file() else b""


def update_shared(path: Path, merge: Callable[[bytes], bytes]) -> None:
    """Replace a file by what `merge` makes of its present bytes; no other process changes it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_suffix(".lock")), atomic_file(path) as file:
        file.write(merge(read_shared(path)))

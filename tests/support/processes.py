"""Other processes: whether one has ended, and waiting for what one does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def has_ended(pid: int) -> bool:
    """Also when its parent has not yet asked how. After a kill, a process ends when the kernel next schedules it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def wait_until(look: Callable[[], Found], what: str, seconds: float = 120) -> Found:
    """What `look` returns once that is true. The limit is for what never happens, not for a slow machine."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s: {what}"
        time.sleep(0.01)
    return found

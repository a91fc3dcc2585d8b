"""Reads the memory of this machine and of processes from /proc and the control group."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def anonymous_bytes(pid: int) -> int:
    """Return the memory that a process holds and no file backs, in bytes; 0 if it has ended."""
    return _field(_PROC / f"{pid}/status", r"RssAnon:\s+(\d+) kB") * 1024


def available_bytes() -> int:
    """Return the bytes that a new process may take.

    They are what the kernel calls available, or less if the control group leaves less.
    """
    free = _field(_PROC / "meminfo", r"MemAvailable:\s+(\d+) kB") * 1024
    limit = _field(_CGROUP / "memory.max", r"(\d+)") or _field(_CGROUP / "memory/memory.limit_in_bytes", r"(\d+)")
    if limit:
        used = _field(_CGROUP / "memory.current", r"(\d+)") or _field(
            _CGROUP / "memory/memory.usage_in_bytes", r"(\d+)"
        )
        statistics = _CGROUP / "memory.stat"
        if not statistics.exists():
            statistics = _CGROUP / "memory/memory.stat"
        reclaimable = _field(statistics, r"^(?:total_)?inactive_file (\d+)") + _field(
            statistics, r"^(?:total_)?active_file (\d+)"
        )
        free = min(free, max(limit - used + reclaimable, 0))
    return free


def oom_kills() -> int:
    """Return how often the kernel has ended a process for want of memory, since it started."""
    group = _field(_CGROUP / "memory.events", r"oom_kill (\d+)")
    return group + _field(_PROC / "vmstat", r"oom_kill (\d+)")


def _field(file: Path, pattern: str) -> int:
    try:
        match = re.search(pattern, file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0


def peak_resident_bytes() -> int:
    """Return the most memory that this process has had, in bytes, mapped files included."""
    return _field(Path("/proc/self/status"), r"VmHWM:\s+(\d+) kB") * 1024

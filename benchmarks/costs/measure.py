"""Measures a piece of work in a process of its own: seconds, peak anonymous memory, bytes on disk."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ...engine.system.memory import anonymous_bytes
from ..bench.child import ChildError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCost:
    """Holds what a child process took.

    Attributes:
        seconds: What the caller waited.
        processor_seconds: What it computed, on all cores, its own children included: other work on the machine changes
            this less.
        peak_anonymous_bytes: Its most memory that no file is behind.
        report: The JSON that it printed last.
    """

    seconds: float
    processor_seconds: float
    peak_anonymous_bytes: int
    report: dict[str, float]


def measure_module(module: str, *arguments: str, interval_s: float = 0.02) -> ProcessCost:
    """Run `python -m MODULE ARGUMENTS` and sample its memory; raise ChildError if it fails."""
    command = [sys.executable, "-m", module, *arguments]
    start, before = time.perf_counter(), _processor_seconds()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    peak, done = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not done.wait(interval_s):
            peak = max(peak, anonymous_bytes(child.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, _ = child.communicate()
    done.set()
    sampler.join()
    seconds = time.perf_counter() - start
    if child.returncode:
        raise ChildError(f"{module} ended with {child.returncode}; what it said is above")
    return ProcessCost(
        seconds=seconds,
        processor_seconds=_processor_seconds() - before,
        peak_anonymous_bytes=peak,
        report=json.loads(output.strip().splitlines()[-1]),
    )


def _processor_seconds() -> float:
    """Return what this process's children that have ended computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def disk_bytes(folder: Path, *, besides: Path | None = None) -> int:
    """Return the bytes of disk that a folder's files take, without files that are also in `besides` (hard links)."""
    known = set() if besides is None else {_identity(file) for file in besides.rglob("*") if file.is_file()}
    files = {_identity(file): file for file in folder.rglob("*") if file.is_file()}
    return sum(512 * file.stat().st_blocks for identity, file in files.items() if identity not in known)


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino

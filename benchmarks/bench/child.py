"""Runs a measurement in a process of its own: what it ends with, what it says last, how much memory it takes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...engine.errors import KontextError
from ...engine.system.memory import anonymous_bytes
from ...engine.system.parent_process import die_with_parent

_PARENT = "KONTEXT_TRT_BENCHMARK"
"""The environment variable in which a child finds its parent's number."""
_INTERVAL_S = 0.02
_LAST_LINES = 3


class ChildError(KontextError):
    """Reports a child process that did not finish its work; the message says why."""


def run_child(
    *arguments: str, log: Path, timeout_s: float | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Run Python with these arguments and write what it prints to `log`.

    If it fails or takes longer than `timeout_s`, its own children, compilers for one, are ended with it.

    Returns:
        The most anonymous memory it had, in bytes.

    Raises:
        ChildError: It fails or takes longer.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start, peak = time.monotonic(), 0
    with (
        log.open("wb") as output,
        child_process(
            *arguments, environment=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as child,
    ):
        while child.poll() is None:
            if timeout_s is not None and time.monotonic() > start + timeout_s:
                raise ChildError(f"not done after {timeout_s:.0f} s{_words(log)}")
            peak = max(peak, anonymous_bytes(child.pid))
            time.sleep(_INTERVAL_S)
    if child.returncode:
        raise ChildError(f"{_ending(child.returncode)}{_words(log)}")
    return peak


@contextlib.contextmanager
def child_process(
    *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run Python with these arguments beside a block; if it has not ended by then, it is killed, with its children.

    A terminal's interrupt does not reach it: it ends when this process leaves the block, or with it, as
    `end_with_parent` says. `environment` has further variables; `options` are those of `subprocess.Popen`.
    """
    with subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {}), _PARENT: str(os.getpid())},
        start_new_session=True,
        **options,
    ) as child:
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def end_with_parent() -> None:
    """End with the parent, if `child_process` runs this process: a benchmark that is killed leaves nothing on the GPU.

    Elsewhere it does nothing.
    """
    parent = os.environ.pop(_PARENT, None)
    if parent is not None:
        die_with_parent(int(parent))


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with {code}"
    hint = ", as the kernel does when memory is short" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{hint}"


def _words(log: Path) -> str:
    words = last_words(log.read_text(errors="replace"))
    return f": {words}" if words else ""


def last_words(output: str) -> str:
    """Return the last lines of what a process printed, as one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " ".join(lines[-_LAST_LINES:])

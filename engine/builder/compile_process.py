"""Runs a compilation in a child process: progress, memory, and what a bad end means."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..system.memory import anonymous_bytes, oom_kills
from .callbacks import OnFraction
from .compile import Compiled, CompileJob
from .compile_child import Message
from .failures import Failure, FailureKind, explain

SECONDS_BETWEEN_SAMPLES = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """Says how a compilation ended: with a plan, or with a failure.

    `peak_bytes` is the most anonymous memory seen in the child.
    """

    compiled: Compiled | None
    failure: Failure | None
    peak_bytes: int


def child_command() -> tuple[str, ...]:
    """Return the command that starts a child.

    The working directory is not on the child's path: a module that lies there must not be imported.
    """
    code = f"import sys; sys.path[:] = filter(None, sys.path); from {__package__}.compile_child import main; main()"
    return (sys.executable, "-c", code)


def visible_device(index: int) -> str:
    """Return what CUDA_VISIBLE_DEVICES must be for a child to see this process's device `index` alone."""
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return shown[index] if index < len(shown) else str(index)


def run_compilation(
    job: CompileJob, on_fraction: OnFraction, *, timeout_s: float | None = None, command: Sequence[str] | None = None
) -> ProcessResult:
    """Compile in a child process; the result says how it ended.

    It never raises for what the compiler does. Output of the child goes to the job's log. If this process is
    interrupted the child is ended first.
    """
    kills_before, deadline = oom_kills(), None if timeout_s is None else time.monotonic() + timeout_s
    reader, writer = os.pipe()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if job.device is not None:  # kernels are timed on the one GPU that the plan is for
        environment |= {"CUDA_VISIBLE_DEVICES": visible_device(job.device)}
    with job.log.open("ab") as log:
        child = subprocess.Popen(
            [*(command or child_command()), str(writer), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            env=environment,
        )
    os.close(writer)
    watch = _ChildWatch(child.pid, on_fraction)
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin:
            child.stdin.write(msgspec.json.encode(job, enc_hook=str))
        timed_out = watch.until_closed(reader, deadline)
        if timed_out:
            child.kill()
        code = child.wait()
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        os.close(reader)
    failure = None
    if watch.compiled is None or code != 0:
        failure = _failure(job.log, code, watch, timeout_s if timed_out else None, oom_kills() > kills_before)
    return ProcessResult(compiled=None if failure else watch.compiled, failure=failure, peak_bytes=watch.peak_bytes)


class _ChildWatch:
    """Holds what a child has reported, and the most memory that it was seen with."""

    def __init__(self, pid: int, on_fraction: Callable[[float], None]) -> None:
        self._pid, self._on_fraction = pid, on_fraction
        self.compiled: Compiled | None = None
        self.refusal: str | None = None
        self.peak_bytes = 0

    def until_closed(self, descriptor: int, deadline: float | None) -> bool:
        """Read until the child closes its end; return True if the deadline came first."""
        pending = b""
        with selectors.DefaultSelector() as waiting:  # select() itself takes no descriptor above 1023
            waiting.register(descriptor, selectors.EVENT_READ)
            while True:
                ready = waiting.select(SECONDS_BETWEEN_SAMPLES)
                self.peak_bytes = max(self.peak_bytes, anonymous_bytes(self._pid))
                if deadline is not None and time.monotonic() > deadline:
                    return True
                if not ready:
                    continue
                data = os.read(descriptor, 1 << 16)
                if not data:
                    return False
                *lines, pending = (pending + data).split(b"\n")
                for message in self._messages(lines):
                    self._take(message)

    def _messages(self, lines: Sequence[bytes]) -> Iterator[Message]:
        for line in lines:
            yield msgspec.json.decode(line, type=Message)

    def _take(self, message: Message) -> None:
        self.compiled = message.compiled or self.compiled
        self.refusal = message.refusal or self.refusal
        if message.compiled is None and message.refusal is None:
            self._on_fraction(message.fraction)


def _failure(log: Path, code: int, watch: _ChildWatch, timeout_s: float | None, oom_killed: bool) -> Failure:
    if timeout_s is not None:
        return Failure(kind=FailureKind.TIMEOUT, words=f"not done after {timeout_s:.0f} s (--timeout)")
    if watch.refusal is not None:
        return explain(watch.refusal)
    if code < 0:
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL and oom_killed:
            words = "the kernel ended it because memory ran out"
            return Failure(kind=FailureKind.HOST_MEMORY, words=words)
        return Failure(kind=FailureKind.SIGNAL, words=f"the compiler's process was ended by {name}")
    tail = log.read_text(errors="replace").strip().splitlines()[-1:]
    return Failure(kind=FailureKind.CRASH, words=f"the compiler's process left with code {code}: {' '.join(tail)}")

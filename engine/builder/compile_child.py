"""Runs the compiler's own process, which takes a job on standard input and answers in JSON lines.

They go to the file descriptor that it is given. `compile_process` starts it. A process of its own gives its memory
back, and its crash is the parent's to explain.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time
from dataclasses import dataclass

import msgspec

from ..errors import KontextError
from ..system.parent_process import die_with_parent
from .compile import Compiled, CompileJob, compile_plan

SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Carries one of these: a part done, a result, a refusal in words."""

    fraction: float = 0.0
    compiled: Compiled | None = None
    refusal: str | None = None


class Reporter:
    """Sends messages to the parent, fractions not too often."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._last = 0.0

    def send(self, message: Message) -> None:
        self._file.write(msgspec.json.encode(message) + b"\n")

    def fraction(self, done: float) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_REPORTS:
            self._last = now
            self.send(Message(fraction=done))


def main() -> None:
    """Run the compilation that standard input describes.

    The arguments are the file descriptor for messages and the parent's process id. Exit code 1 follows a refusal.
    """
    die_with_parent(int(sys.argv[2]))
    faulthandler.enable()  # a crash leaves a Python stack in the log
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    report = Reporter(int(sys.argv[1]))
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=CompileJob, dec_hook=lambda kind, value: kind(value))
    try:
        report.send(Message(compiled=compile_plan(job, report.fraction)))
    except (KontextError, OSError) as error:
        report.send(Message(refusal=str(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()

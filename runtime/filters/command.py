"""Asks a program whether a prompt or a picture may be used."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence, Set
from pathlib import Path

from ...engine.errors import ExecutorError, OptionError
from .interface import ALLOWED, Content, Stage, Verdict

SECONDS = 60.0
"""The seconds that a program has for an answer, if nobody says otherwise."""
REFUSES = 1
"""The exit code that refuses; 0 allows, and any other is a failure, which refuses, too."""
_SLICE_SECONDS = 0.1


class CommandFilter:
    """Asks a program, a process per question.

    The program reads a line of JSON, `{"stage": ..., "prompt": ..., "picture_bytes": ...}`, and after it as many bytes
    of a PNG. It exits with 0 to allow and with 1 to refuse. What it prints goes nowhere, since it may hold content.

    Args:
        arguments: The program and its arguments. No shell looks at them.
        seconds: The seconds that it has; then it is killed, with what it started.
        stages: When it is asked.

    Raises:
        OptionError: There is no such program, or `seconds` is not above 0.
    """

    def __init__(
        self, arguments: Sequence[str], *, seconds: float = SECONDS, stages: Set[Stage] = frozenset(Stage)
    ) -> None:
        if isinstance(arguments, str) or not arguments or not all(isinstance(one, str) for one in arguments):
            raise OptionError("a command is a list of texts, the program first; no shell takes it apart")
        program = shutil.which(arguments[0])
        if program is None:
            raise OptionError(f"there is no program {arguments[0]!r} that could be run as a filter")
        if not seconds > 0:
            raise OptionError(f"a filter's seconds must be above 0, not {seconds!r}")
        self.name, self.stages = Path(program).name, stages
        self._arguments, self._seconds = [program, *arguments[1:]], float(seconds)

    def check(self, content: Content) -> Verdict:
        question = self._question(content)
        nowhere = subprocess.DEVNULL
        with subprocess.Popen(
            self._arguments, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, start_new_session=True
        ) as process:
            try:
                self._talk(process, question, content)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with what it started
        if process.returncode == 0:
            return ALLOWED
        if process.returncode == REFUSES:
            return Verdict(allowed=False, reason="the program refuses")
        raise ExecutorError(f"the filter {self.name} ended with {process.returncode}, not 0 or {REFUSES}")

    def _question(self, content: Content) -> bytes:
        picture = b""
        if content.picture is not None:
            file = io.BytesIO()
            content.picture.save(file, format="PNG", compress_level=1)
            picture = file.getvalue()
        asked = {"stage": content.stage.value, "prompt": content.prompt, "picture_bytes": len(picture)}
        return json.dumps(asked).encode() + b"\n" + picture

    def _talk(self, process: subprocess.Popen[bytes], question: bytes, content: Content) -> None:
        """Write a question, and wait for the program's end, or until its time is up or nobody waits any more."""
        given: bytes | None = question
        end = time.monotonic() + self._seconds
        while True:
            try:
                process.communicate(given, timeout=_SLICE_SECONDS)
                return
            except subprocess.TimeoutExpired:
                given = None  # what is not written yet is gone on with
                if content.cancel is not None and content.cancel.is_set():
                    raise
                if time.monotonic() > end:
                    raise ExecutorError(f"the filter {self.name} did not answer within {self._seconds:g} s") from None

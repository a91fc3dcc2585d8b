"""Types the commands of chapters in a shell, looks at what comes of them, and keeps what was shown."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import KontextError
from .normal import fold, normal
from .steps import Chapter, Step

LIMIT_S = 900
"""The seconds that one command may take, on a machine with other work."""


class StepFailed(KontextError):
    """Says that something else came of a command than a newcomer is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Holds a step with the lines that it showed, without what differs from run to run, and what was wrong if any."""

    step: Step
    lines: tuple[str, ...]
    seconds: float
    problem: str = ""


def play(
    chapter: Chapter, folder: Path, environment: Mapping[str, str], say: Callable[[str], None] = print
) -> list[Shown]:
    """Type every step of a chapter in a folder, in order, also after one that went wrong.

    Raises:
        StepFailed: An exit code, a phrase or a picture is not the one that is expected; the message has each, with the
            command's output.
    """
    shown: list[Shown] = []
    for step in chapter.steps:
        made = _type(step, folder, environment)
        say(f"{made.seconds:6.1f} s  {step.types}{'  WRONG' if made.problem else ''}")
        shown.append(made)
        if made.problem and step.quiet:  # nothing works without what is installed
            break
    if problems := [f"$ {one.step.types}\n{one.problem}" for one in shown if one.problem]:
        raise StepFailed("\n\n".join(problems))
    return shown


def _type(step: Step, folder: Path, environment: Mapping[str, str]) -> Shown:
    if step.file is not None:
        (folder / step.file[0]).write_text(step.file[1])
    start = time.monotonic()
    try:
        done = subprocess.run(
            ["bash", "-c", step.types],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Shown(step=step, lines=(), seconds=LIMIT_S, problem=f"did not end within {LIMIT_S} s")
    wrong = _wrong(step, folder, done.returncode, done.stdout)
    return Shown(
        step=step,
        lines=_kept(step, normal(done.stdout, folder)),
        seconds=time.monotonic() - start,
        problem=f"{done.stdout}\n{wrong}" if wrong else "",
    )


def _wrong(step: Step, folder: Path, code: int, output: str) -> str:
    """Return what is not as expected, "" if all is."""
    if code != step.code:
        return f"ended with {code}, and {step.code} is expected"
    said = " ".join(output.split())
    missing = [phrase for phrase in step.shows if phrase not in said]
    if missing:
        return f"does not say {' and '.join(map(repr, missing))}"
    for check in step.checks:
        try:
            check(folder)
        except AssertionError as error:
            return str(error)
    return ""


def _kept(step: Step, lines: list[str]) -> tuple[str, ...]:
    """Return the lines that go on the page; what is left out is marked."""
    if step.quiet:
        return ()
    kept: list[str] = []
    for line in lines:
        if re.search(step.only, line):
            kept += fold(line)
        elif not kept or kept[-1] != "[...]":
            kept.append("[...]")
    return tuple(kept)

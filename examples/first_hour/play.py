"""Plays chapters: types their commands in a shell, looks at what comes of them, and keeps what was shown."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import KontextError
from .normal import normal
from .steps import Chapter, Step

LIMIT_S = 900
"""The seconds that one command may take, on a machine with other work."""


class StepFailed(KontextError):
    """Says that something else came of a command than a newcomer is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Holds a step with the lines that it showed, without what differs from run to run."""

    step: Step
    lines: tuple[str, ...]
    seconds: float


def play(
    chapter: Chapter, folder: Path, environment: Mapping[str, str], say: Callable[[str], None] = print
) -> list[Shown]:
    """Type every step of a chapter in a folder, in order.

    Raises:
        StepFailed: An exit code, a phrase or a picture is not the one that is expected; its output is in the message.
    """
    shown: list[Shown] = []
    for step in chapter.steps:
        made = _type(step, folder, environment)
        say(f"{made.seconds:6.1f} s  {step.types}")
        shown.append(made)
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
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"$ {step.types}\ndid not end within {LIMIT_S} s") from error
    output = done.stdout
    if done.returncode != step.code:
        raise StepFailed(f"$ {step.types}\n{output}\nended with {done.returncode}, and {step.code} is expected")
    said = " ".join(output.split())
    for phrase in step.shows:
        if phrase not in said:
            raise StepFailed(f"$ {step.types}\n{output}\ndoes not say {phrase!r}")
    for check in step.checks:
        try:
            check(folder)
        except AssertionError as error:
            raise StepFailed(f"$ {step.types}\n{output}\n{error}") from error
    return Shown(step=step, lines=_kept(step, normal(output, folder)), seconds=time.monotonic() - start)


def _kept(step: Step, lines: list[str]) -> tuple[str, ...]:
    """Return the lines that go on the page; what is left out is marked."""
    if step.quiet:
        return ()
    if not step.only:
        return tuple(lines)
    kept: list[str] = []
    for line in lines:
        if re.search(step.only, line):
            kept.append(line)
        elif not kept or kept[-1] != "[...]":
            kept.append("[...]")
    return tuple(kept)

"""Describes what a newcomer types, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[Path], None]
"""The type of what looks at the folder after a step; it raises AssertionError with what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Describes one command: the sentence before it, what is typed, and what has to come of it.

    `shows` are phrases of its output, `checks` look at what it made. `mistyped` says that the command line does not
    know what is typed. Only lines that match `only` are on the page, nothing of the output if that is empty.
    """

    says: str
    types: str
    code: int = 0
    shows: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    mistyped: bool = False
    only: str = ""
    quiet: bool = False
    file: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """Describes a part of the hour: a heading, words below it, and its steps, typed in `folder` by one interpreter.

    `python` is the version that it needs, such as (3, 10), or None for the interpreter that plays the whole.
    """

    title: str
    intro: str
    steps: tuple[Step, ...]
    python: tuple[int, int] | None = None

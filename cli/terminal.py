"""Holds what the commands of all folders share: where they print, progress bars, JSON."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ..engine.printable import json_escape, printable, printable_line


class SafeConsole(Console):
    """Prints text as it is written: names and messages from files of elsewhere do not control the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class SafeFormatter(logging.Formatter):
    """Writes log messages without what controls a terminal: they name files, layers and tensors from elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


screen = SafeConsole(soft_wrap=True, markup=False, highlight=False, emoji=False)
"""The console for results, on standard output."""
notes = SafeConsole(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)
"""The console for progress, warnings and errors, on standard error."""


class LineHandler(logging.Handler):
    """Prints each log message in a line of its own, as warnings and errors are."""

    def emit(self, record: logging.LogRecord) -> None:
        notes.print(f"{record.levelname.lower()}: {self.format(record)}")


def log_handler() -> logging.Handler:
    """Return what prints log messages: in columns on a terminal, and elsewhere in lines that nothing folds."""
    made = RichHandler(console=notes, show_path=False, show_time=False) if notes.is_terminal else LineHandler()
    made.setFormatter(SafeFormatter("%(message)s"))
    return made


IMPORTING = "importing torch"
"""The work that takes seconds before a command that needs torch begins."""


def print_json(value: Any) -> None:
    """Print one JSON document on standard output. Dataclasses, enums and paths are allowed."""
    text = printable(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode(), json_escape)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=2)  # in ASCII
    sys.stdout.write(text + "\n")


def print_json_line(value: Any) -> None:
    """Print one JSON document in a line of ASCII on standard output, and send it off: who reads may answer it."""
    text = json.dumps(json.loads(msgspec.json.encode(value, enc_hook=str)))
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")
    sys.stdout.flush()


def escape_what_cannot_be_written() -> None:
    """Make standard output escape characters that its encoding lacks, as standard error does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


class Bars:
    """Shows progress bars with elapsed and remaining time; one per task, each finished before the next starts.

    A task with nothing to do has none. What is no terminal gets a line per task that is kept, and no bar.

    Args:
        progress: What draws them.
        keep: Whether a bar stays once its task is done.
    """

    def __init__(self, progress: Progress, *, keep: bool = True) -> None:
        self._progress, self._keep = progress, keep
        self._task: TaskID | None = None

    def start(self, task: str, total: float) -> None:
        self.finish()
        if total <= 0:
            return
        words = printable_line(task)
        if self._progress.console.is_terminal:
            self._task = self._progress.add_task(words, total=total)
        elif self._keep:
            self._progress.console.print(words)

    def advance(self, amount: float) -> None:
        if self._task is not None:
            self._progress.advance(self._task, amount)

    def finish(self) -> None:
        """End the task that is under way, if one is."""
        if self._task is None:
            return
        if self._keep:
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            self._progress.update(self._task, completed=task.total)
        else:
            self._progress.remove_task(self._task)
        self._task = None


@contextmanager
def progress_bars(*, keep: bool = True) -> Iterator[Bars]:
    """Show bars on standard error while the block runs.

    Args:
        keep: Whether the bars of tasks that are done stay on the screen; else there is one, of what is under way.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=notes, transient=not keep, disable=not notes.is_terminal) as progress:
        bars = Bars(progress, keep=keep)
        yield bars
        bars.finish()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on a terminal what takes a while, as long as the block runs."""
    if notes.is_terminal:
        with notes.status(Text(what)):
            yield
    else:
        yield

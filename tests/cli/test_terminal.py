"""What comes from elsewhere does not control the terminal, whichever way it is printed."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.logging import RichHandler
from rich.table import Table

from kontext_trt.cli.terminal import Bars, SafeConsole, SafeFormatter, log_handler, print_json, print_json_line
from kontext_trt.engine.printable import printable, printable_line

HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\x9bc\u202ed :apple: [red]e[/red]\r"
SHOWN = r"a\x1b]0;title\x07\x1b[2Jb\x9bc\u202ed :apple: [red]e[/red]\r"


@pytest.fixture
def console() -> SafeConsole:
    return SafeConsole(file=io.StringIO(), markup=False, highlight=False, emoji=False, width=200, soft_wrap=True)


def written(console: SafeConsole) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_texts_and_tables(console: SafeConsole) -> None:
    console.print(HOSTILE)
    table = Table(HOSTILE, box=None)
    table.add_row(HOSTILE)
    console.print(table)
    assert written(console).count(SHOWN) == 3


def test_log_messages(console: SafeConsole) -> None:
    handler = RichHandler(console=console, show_path=False, show_time=False)
    handler.setFormatter(SafeFormatter("%(message)s"))
    handler.handle(logging.LogRecord("x", logging.WARNING, "", 0, "node %s", (HOSTILE,), None))
    assert f"node {SHOWN}" in written(console)


def bars_of(console: SafeConsole, *, keep: bool, terminal: bool) -> str:
    """What is left on the screen of three tasks, of which one has nothing to do."""
    from rich.progress import Progress, TextColumn

    with Progress(
        TextColumn("{task.description} {task.percentage:.0f}"),
        console=console,
        transient=not keep,
        disable=not terminal,
    ) as progress:
        bars = Bars(progress, keep=keep)
        for task, total in (("one", 2), ("nothing", 0), ("three", 4)):
            bars.start(task, total)
            bars.advance(1)
        shown = [(task.description, task.completed, task.total) for task in progress.tasks]
        bars.finish()
    kept = [("one", 2, 2), ("three", 1, 4)] if keep else [("three", 1, 4)]
    assert shown == (kept if terminal else [])
    return written(console)


def test_tasks_with_nothing_to_do_have_no_bar() -> None:
    def terminal() -> SafeConsole:
        return SafeConsole(file=io.StringIO(), force_terminal=True, width=80)

    assert "nothing" not in bars_of(terminal(), keep=True, terminal=True)
    assert "nothing" not in bars_of(terminal(), keep=False, terminal=True)


def test_pipes_get_a_line_per_task_that_is_kept_and_no_bar(console: SafeConsole) -> None:
    assert bars_of(console, keep=False, terminal=False) == ""
    assert bars_of(console, keep=True, terminal=False) == "one\nthree\n"


def test_log_messages_in_pipes_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    handler = log_handler()
    handler.handle(logging.LogRecord("x", logging.WARNING, "", 0, "%s", ("long " * 60 + HOSTILE,), None))
    assert capsys.readouterr().err == f"warning: {'long ' * 60}{SHOWN}\n"


def test_progress(console: SafeConsole) -> None:
    from rich.progress import Progress, TextColumn

    with Progress(TextColumn("{task.description}", markup=False), console=console, refresh_per_second=1000) as progress:
        Bars(progress).start(f"{HOSTILE}\nforged", 1)
    assert SHOWN + r"\nforged" in written(console)


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": HOSTILE})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"name": HOSTILE}
    assert printed == printable(printed)


def test_a_line_of_json_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_line({"name": HOSTILE + "\x7f\n", "path": Path("a")})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"name": HOSTILE + "\x7f\n", "path": "a"}
    assert printed.isascii()
    assert printed.count("\n") == 1
    assert printed == printable(printed)


def test_letters_of_every_script_stay() -> None:
    text = "Grüße, 日本語, עברית, العربية 🎨\n\tlines"
    assert printable(text) == text
    assert printable_line(text).endswith(r"\n\tlines")


def run_in(encoding: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "kontext_trt", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(encoding)


@pytest.mark.parametrize(("encoding", "name"), [("ascii", "\u732b"), ("latin-1", "\U0001f431 caf\xe9")])
def test_names_that_the_terminals_encoding_lacks_are_escaped(
    bundle_path: Path, tmp_path: Path, encoding: str, name: str
) -> None:
    picture = tmp_path / f"{name}.png"
    request = ("generate", str(bundle_path), "-p", "x", "--steps", "1", "--size", "32x32", "-o", str(picture))
    said = run_in(encoding, *request)
    assert picture.exists()
    assert picture.name.encode(encoding, "backslashreplace").decode(encoding) in said
    (document,) = json.loads(run_in(encoding, *request, "--json"))["pictures"]
    assert document["path"] == str(picture), "JSON has escapes of its own"

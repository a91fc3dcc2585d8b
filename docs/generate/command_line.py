"""Writes docs/reference/command-line.md: every command, argument and option, as typer knows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from kontext_trt.cli.app import app

PAGE = Path(__file__).parents[1] / "reference" / "command-line.md"
HEAD = """# Command line

`kontext-trt COMMAND --help` prints the same. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
With `--json` a command prints one document for programs on standard output, whole whatever tables leave out; progress,
notes and warnings always go to standard error. Tables and help have a line per row in pipes, so that `grep` finds whole
rows; on a narrow terminal they are folded, or a row becomes a line per cell. `kontext-trt --verbose COMMAND` says what
is done as it is done.
"""


def cell(text: str) -> str:
    """Write text so that Markdown leaves it alone in a table."""
    return re.sub(r"([|<>*_\[\]])", r"\\\1", " ".join(text.replace("\\[", "[").split()))


def describe(name: str, command: Any) -> Iterator[str]:
    """Yield the parts of a command's section.

    In code Python-Markdown's tables keep a | as it is.
    """
    context = typer.Context(command, info_name=name)
    yield f"## {name}"
    yield " ".join(command.help.replace("\\[", "[").split())
    yield "    " + " ".join(["kontext-trt", name, *command.collect_usage_pieces(context)])
    for kind in ("argument", "option"):
        records = [one.get_help_record(context) for one in command.params if one.param_type_name == kind]
        rows = [f"| `{signature}` | {cell(text)} |" for signature, text in records]
        if rows:
            yield "\n".join([f"| {kind} | |", "|---|---|", *rows])


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its name, which begins with those of its groups."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def main() -> None:
    """Write the page."""
    found = list(commands(typer.main.get_command(app)))
    if not found:
        raise SystemExit("the command line has no commands")
    parts = [HEAD.strip(), *(part for name, command in found for part in describe(name, command))]
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()

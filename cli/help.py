"""Prints `--help` whole: in pipes a line per option, and on narrow terminals without panels, which cut names."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from typing import Any

PANEL_COLUMNS = 120
"""The columns from which on panels have room for every option's name."""
PIPE_COLUMNS = 10_000
"""The columns of what is no terminal: more than any line has."""


def whole_help(command: Any) -> Any:
    """Make a command, and those of a group, print its help whole, and return it."""
    command.format_help = partial(_format_help, command, command.format_help)
    for one in getattr(command, "commands", {}).values():
        whole_help(one)
    return command


def columns_of_output() -> int:
    """Return the columns that standard output has."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_COLUMNS


def _format_help(command: Any, panels: Any, context: Any, formatter: Any) -> None:
    columns = columns_of_output()
    if PANEL_COLUMNS <= columns < PIPE_COLUMNS:
        panels(context, formatter)
        return
    formatter.width = columns - 2
    formatter.write_dl = partial(formatter.write_dl, col_max=columns // 3)
    mode, command.rich_markup_mode = command.rich_markup_mode, None
    try:
        panels(context, formatter)  # plain, without the mode
    finally:
        command.rich_markup_mode = mode

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
    panels = command.format_help
    plain = partial(_plain_help, command, panels)
    command.format_help = lambda context, formatter: (panels if has_panels() else plain)(context, formatter)
    for one in getattr(command, "commands", {}).values():
        whole_help(one)
    return command


def has_panels() -> bool:
    """Return whether help is shown in panels: on a terminal that is wide enough."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns >= PANEL_COLUMNS


def _plain_help(command: Any, format_help: Any, context: Any, formatter: Any) -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_COLUMNS
    formatter.width = columns - 2
    formatter.write_dl = partial(formatter.write_dl, col_max=columns // 3)
    mode, command.rich_markup_mode = command.rich_markup_mode, None
    try:
        format_help(context, formatter)
    finally:
        command.rich_markup_mode = mode

"""Prints tables so that nothing of a cell is lost: whole lines in pipes, folded or stacked on narrow terminals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..engine.printable import printable_line
from .terminal import screen

GAP = "  "
"""The space between two columns."""
WHOLE_CELLS = 14
"""The characters up to which a column is never folded: numbers and short words stay in one piece."""


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = False, console: Console = screen
) -> None:
    """Print a table: a line per row, wherever lines are long enough.

    What is no terminal has lines of any length. On a terminal that is too narrow long cells are folded; if even that
    does not suffice, each row becomes a line per cell, behind the column's name.

    Args:
        columns: The headings; without a word in any of them there is no line of headings.
        rows: The cells of each row, one per column.
        right: Whether all columns but the first are of numbers, and end at one place.
        console: Where it is printed.
    """
    cells = [[printable_line(cell) for cell in row] for row in rows]
    head = [printable_line(column) for column in columns]
    lines = [head, *cells] if any(head) else cells
    if not lines:
        return
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    gaps = len(GAP) * (len(widths) - 1)
    if not console.is_terminal or sum(widths) + gaps <= console.width:
        for number, line in enumerate(lines):
            text = GAP.join(
                _padded(cell, width, right and at > 0)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            console.print(Text(text.rstrip(), style="bold" if any(head) and number == 0 else ""))
    elif sum(min(width, WHOLE_CELLS) for width in widths) + gaps <= console.width:
        console.print(_folded(head, cells, widths, right=right))
    else:
        _print_stacked(head, cells, console)


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space


def _folded(head: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int], *, right: bool) -> Table:
    table = Table(box=None, show_header=any(head), pad_edge=False, padding=(0, len(GAP), 0, 0))
    for number, (column, width) in enumerate(zip(head, widths, strict=True)):
        justify = "right" if right and number else "left"
        table.add_column(Text(column), justify=justify, overflow="fold", no_wrap=width <= WHOLE_CELLS)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _print_stacked(head: Sequence[str], cells: Sequence[Sequence[str]], console: Console) -> None:
    name_width = max(map(cell_len, head))
    for row in cells:
        for number, (column, cell) in enumerate(zip(head, row, strict=True)):
            name = column if number == 0 else GAP + column
            console.print(Text(_padded(name, name_width + 2 * len(GAP), right=False) + cell if name_width else cell))

"""Tables lose nothing: a line per row in pipes, folded or stacked on narrow terminals."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest

from kontext_trt.cli import tables
from kontext_trt.cli.tables import print_table
from kontext_trt.cli.terminal import SafeConsole

COLUMNS = ("activation", "amax", "p99.9", "values")
NAMES = [f"denoiser.single_transformer_blocks.{number}.attn.to_q.input" for number in (0, 37)]
ROWS = [(NAMES[0], "12.5", "3.25", "1,048,576"), (NAMES[1], "448", "0.001953", "64")]


def printed(width: int, rows: object = ROWS, *, terminal: bool, columns: object = COLUMNS, right: bool = True) -> str:
    file = io.StringIO()
    console = SafeConsole(
        file=file, force_terminal=terminal, no_color=True, width=width, soft_wrap=True, markup=False, highlight=False
    )
    print_table(columns, rows, right=right, console=console)  # pyright: ignore[reportArgumentType]
    return file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")


@pytest.mark.parametrize("width", [200, 80, 40])
def test_what_is_no_terminal_gets_a_line_per_row(width: int) -> None:
    lines = printed(width, terminal=False).splitlines()
    assert [line.split() for line in lines] == [list(COLUMNS), *map(list, ROWS)]
    assert all(line == line.rstrip() for line in lines)
    assert len({len(line) for line in lines}) == 1, "numbers end at one place"


def test_names_are_folded_where_they_do_not_fit() -> None:
    text = printed(60, terminal=True)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 60
    assert "…" not in text
    for row in ROWS:
        assert all(cell in text for cell in row[1:]), "numbers stay whole"
    width = lines[0].index("amax") - 2
    names = "".join(line[:width].strip() for line in lines[1:])
    assert names == "".join(NAMES)


@pytest.mark.parametrize("width", [40, 20, 8])
def test_a_row_becomes_lines_where_even_that_does_not_fit(width: int) -> None:
    text = printed(width, terminal=True)
    assert "…" not in text
    assert [line.split() for line in text.splitlines()] == [
        list(pair) for row in ROWS for pair in zip(COLUMNS, row, strict=True)
    ]


def test_nothing_is_lost_at_any_width() -> None:
    for width, terminal in itertools.product(range(1, 121), (True, False)):
        text = "".join(printed(width, terminal=terminal).split())
        assert "…" not in text
        for letters in ("amax", "448", "0.001953", "1,048,576"):
            assert letters in text


def test_a_table_without_headings_or_rows() -> None:
    rows = [("a", "1"), ("bcd", "22")]
    assert printed(80, rows, terminal=True, columns=("", "")) == "a     1\nbcd  22\n"
    assert printed(4, rows, terminal=True, columns=("", "")).split() == ["a", "1", "bcd", "22"]
    assert printed(80, [], terminal=True, columns=("", "")) == ""
    assert printed(80, [], terminal=True) == "activation  amax  p99.9  values\n"


def test_names_from_elsewhere_stay_in_their_row() -> None:
    text = printed(80, [("a\nb\x1b[2J", "[red]1[/red]")], terminal=False, columns=("n", "m"), right=False)
    assert text == "n            m\na\\nb\\x1b[2J  [red]1[/red]\n"


def test_wide_letters_count_as_two() -> None:
    assert (
        printed(80, [("日本", "1"), ("ab", "2")], terminal=False, columns=("", ""), right=False) == "日本  1\nab    2\n"
    )


def test_tables_are_made_in_one_place() -> None:
    root = Path(tables.__file__).parents[1]
    rooms = ("cli", "engine", "runtime", "export", "serving", "benchmarks")
    found = [file for room in rooms for file in (root / room).rglob("*.py") if "rich.table" in file.read_text()]
    assert found == [Path(tables.__file__)]

"""Sheets of pictures: where things stand, what is said, and letters that there are."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kontext_trt.benchmarks import lettering
from kontext_trt.benchmarks.lettering import MAX_CHARACTERS, drawable, font, wrap
from kontext_trt.benchmarks.sheets import RIGHT, WRONG, Cell, Column, Layout, Sheet, Table, write_pages

LONG = "paint the small striped hexagon behind the lamp in a colour that nobody in this room has a word for " * 3
PICTURE = Image.new("RGB", (100, 60), "teal")


def sheet(rows: int = 5, across: int = 2) -> Sheet:
    columns = (Column(head="request", width=120), Column(head="answer", width=100))
    cells = [
        (Cell(words=f"{number}. {LONG[: 20 + 60 * (number % 4)]}"), Cell(picture=PICTURE, right=number % 2 == 0))
        for number in range(rows)
    ]
    return Sheet(title=LONG, notes=("bundle abc",), tables=(Table(columns=columns, rows=tuple(cells), across=across),))


def overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def check_places(layout: Layout) -> None:
    """Everything is on the sheet, and nothing lies on anything else."""
    boxes = [words.box for words in layout.texts] + [box for _, box in layout.pictures]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= layout.extent[0]
        assert 0 <= top < bottom <= layout.extent[1]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    for words in layout.texts:
        assert max(words.font.getlength(line) for line in words.lines) <= words.box[2] - words.box[0]


@pytest.mark.parametrize(("rows", "across"), [(1, 2), (5, 2), (4, 1), (0, 1)])
def test_long_texts_wrap_and_nothing_overlaps(rows: int, across: int):
    layout = sheet(rows, across).lay_out()
    check_places(layout)
    assert len(layout.texts[0].lines) > 1, "the title wraps"
    assert layout.draw().size == layout.extent


def test_every_block_has_heads_and_every_answer_a_verdict():
    layout = sheet().lay_out()
    assert layout.said.count("request") == layout.said.count("answer") == 2
    assert [right for right, _ in layout.marks] == [True, False, True, False, True]
    assert (layout.said.count("right"), layout.said.count("wrong")) == (3, 2)
    assert len(layout.frames) == 2
    assert LONG.strip() == layout.said[0]


def test_a_tick_and_a_cross_differ_in_form():
    """Nobody has to tell red from green."""
    marks = []
    for right, colour in ((True, RIGHT), (False, WRONG)):
        layout = Layout(size=40, extent=(60, 60))
        layout.marks.append((right, (10, 10, 50, 50)))
        marks.append((np.asarray(layout.draw()) == tuple(bytes.fromhex(colour[1:]))).all(axis=2))
    tick, cross = marks
    assert min(tick.sum(), cross.sum()) > 50
    assert (tick & cross).sum() < 0.6 * min(tick.sum(), cross.sum())
    assert cross[10:25, 10:25].sum() > 20 > tick[10:25, 10:25].sum(), "a cross begins at the left above"


def test_pages_are_files_and_those_of_before_go(tmp_path: Path):
    path, other = tmp_path / "sheet.png", tmp_path / "sheet-final.png"
    other.touch()
    names = ["sheet.png", "sheet-2.png", "sheet-3.png"]
    assert [file.name for file in write_pages([sheet(1)] * 3, path)] == names
    with Image.open(path) as image:
        assert image.size == sheet(1).lay_out().extent
    assert write_pages([sheet(1)], path) == [path]
    assert {file.name for file in tmp_path.iterdir()} == {"sheet.png", "sheet-final.png"}
    assert write_pages([], path) == []
    assert list(tmp_path.iterdir()) == [other]


def test_more_rows_grow_the_sheet():
    heights = [sheet(rows).lay_out().extent[1] for rows in (2, 10, 40)]
    assert heights == sorted(set(heights))


@pytest.mark.parametrize("width", [30, 120, 4000])
def test_lines_are_as_wide_as_they_may_be_and_lose_nothing(width: int):
    text = f"{LONG}{'unbroken' * 30}"
    lines = wrap(text, width, 13)
    assert max(font(13).getlength(line) for line in lines) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("", width, 13) == wrap(" \n", width, 13) == ()


def test_texts_are_cut_and_their_control_characters_shown():
    assert drawable("a\n b\x1b[2J\tc") == r"a b\x1b[2J c"
    cut = drawable("x" * (MAX_CHARACTERS + 1))
    assert cut == "x" * MAX_CHARACTERS + " ..."


def test_without_matplotlibs_font_letters_are_ascii(monkeypatch: pytest.MonkeyPatch):
    assert drawable("Größe 日本") == "Größe 日本"
    monkeypatch.setattr(lettering, "font_file", lambda: None)
    font.cache_clear()
    try:
        assert drawable("Größe, café 日本") == "Gro?e, cafe ??"
        check_places(sheet().lay_out())
    finally:
        font.cache_clear()


def test_without_matplotlib_there_is_no_font_file(monkeypatch: pytest.MonkeyPatch):
    assert lettering.font_file() is not None
    monkeypatch.setattr(lettering.importlib.util, "find_spec", lambda _: None)
    assert lettering.font_file.__wrapped__() is None

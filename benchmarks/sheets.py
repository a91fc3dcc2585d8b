"""Lays out and draws sheets of pictures: a title, heads of columns, pictures with captions, right or wrong in words.

What stands where is decided before anything is drawn, so a sheet can be asked what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from PIL import Image, ImageDraw

from ..engine.system.files import atomic_file
from .lettering import INK, QUIET, Font, font, wrap

RIGHT, WRONG, RULE, PAPER = "#1e6e2d", "#b40f14", "#cccccc", "#ffffff"
GAP = 10
"""The pixels between columns and between rows, and around the sheet."""
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Says what a column's head is, and its width in pixels."""

    head: str
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Holds a picture, or none, with words below it; without a picture they stand at the cell's top.

    Attributes:
        picture: The picture, at most as wide as its column.
        right: Whether it is right, which is drawn as a tick or a cross and said in a word; None says nothing.
        words: What stands below it.
    """

    picture: Image.Image | None = None
    right: bool | None = None
    words: str = ""

    @property
    def text(self) -> str:
        """The verdict and the words, as they are written."""
        verdict = () if self.right is None else ("right" if self.right else "wrong",)
        return ": ".join((*verdict, *filter(None, (self.words,))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Holds rows of a cell per column; `across` of them stand beside each other, each under heads of its own."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    across: int = 1

    @property
    def width(self) -> int:
        """The width in pixels of what stands beside each other, with a gap after each."""
        return self.beside * self.block

    @property
    def beside(self) -> int:
        """The number of rows beside each other: no more than there are."""
        return min(self.across, max(1, len(self.rows)))

    @property
    def block(self) -> int:
        """The width in pixels of one row, with a gap after it."""
        return sum(column.width + GAP for column in self.columns) + GAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Says what a sheet shows.

    Attributes:
        title: What it is of, and of which bundle.
        notes: What else has to be known to read it: how it was made, what marks mean.
        tables: The tables, one below the other.
        size: The size of letters in pixels; the title's are half as large again.
    """

    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...]
    size: int = 13

    def lay_out(self) -> Layout:
        """Return what stands where."""
        layout = Layout(size=self.size)
        width = max(table.width for table in self.tables) + GAP
        bottom = layout.write(self.title, (GAP, GAP), width - 2 * GAP, scale=1.5)
        for note in self.notes:
            bottom = layout.write(note, (GAP, bottom + GAP // 2), width - 2 * GAP, colour=QUIET)
        for table in self.tables:
            bottom = layout.place_table(table, bottom + 2 * GAP)
        layout.extent = width, bottom + GAP
        return layout

    def draw(self) -> Image.Image:
        """Return the sheet as a picture."""
        return self.lay_out().draw()


def write_pages(pages: Sequence[Sheet], path: Path) -> list[Path]:
    """Write sheets as `path`, NAME-2.png, NAME-3.png and so on, each whole or not at all; return the files.

    Further pages of such names, which an earlier run has left, are removed: all of them where there are no sheets.
    """
    files: list[Path] = []
    for number, page in enumerate(pages, 1):
        files.append(_page_file(path, number))
        with atomic_file(files[-1]) as file:
            page.draw().save(file, format="PNG", optimize=True)
    further = len(pages) + 1
    while (left := _page_file(path, further)).is_file():
        left.unlink()
        further += 1
    return files


def _page_file(path: Path, number: int) -> Path:
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")


@dataclass(frozen=True, slots=True)
class Words:
    """Holds lines of text where they stand: their box, colour and font."""

    lines: tuple[str, ...]
    box: Box
    colour: str
    font: Font


@dataclass(slots=True, kw_only=True)
class Layout:
    """Holds what stands where on a sheet: `extent` is its (width, height), boxes are (left, top, right, bottom)."""

    size: int
    extent: tuple[int, int] = (0, 0)
    texts: list[Words] = field(default_factory=list[Words])
    pictures: list[tuple[Image.Image, Box]] = field(default_factory=list[tuple[Image.Image, Box]])
    marks: list[tuple[bool, Box]] = field(default_factory=list[tuple[bool, Box]])
    frames: list[Box] = field(default_factory=list[Box])
    rules: list[Box] = field(default_factory=list[Box])
    LINE: ClassVar[float] = 1.35
    """The height of a line over the size of its letters."""

    def write(self, text: str, at: tuple[int, int], width: int, *, colour: str = INK, scale: float = 1.0) -> int:
        """Place a text, wrapped to a width in pixels; return where it ends below."""
        size = round(scale * self.size)
        lines = wrap(text, width, size)
        bottom = at[1] + round(len(lines) * self.LINE * size)
        if lines:
            self.texts.append(Words(lines, (*at, at[0] + width, bottom), colour, font(size)))
        return bottom

    def place_table(self, table: Table, top: int) -> int:
        """Place a table at the sheet's left; return where it ends below."""
        lefts = [GAP + number * table.block for number in range(table.beside)]
        bottom = max(self.write_heads(table.columns, left, top) for left in lefts)
        for start in range(0, len(table.rows), table.beside):
            top = bottom + GAP
            placed = zip(lefts, table.rows[start : start + table.beside], strict=False)
            bottom = max(self.place_row(table.columns, row, left, top) for left, row in placed)
        return bottom

    def write_heads(self, columns: Sequence[Column], left: int, top: int) -> int:
        """Place the heads of columns over a line across them; return where that ends below."""
        lefts = _lefts(columns, left)
        bottom = max(self.write(one.head, (x, top), one.width) for x, one in zip(lefts, columns, strict=True)) + 2
        self.rules.append((left, bottom, lefts[-1] + columns[-1].width, bottom + 1))
        return bottom + 1

    def place_row(self, columns: Sequence[Column], row: Sequence[Cell], left: int, top: int) -> int:
        """Place the cells of a row, pictures in the middle of its height; return where the lowest ends."""
        tallest = max((cell.picture.height for cell in row if cell.picture is not None), default=0)
        bottoms: list[int] = []
        for x, column, cell in zip(_lefts(columns, left), columns, row, strict=True):
            below = top
            if (picture := cell.picture) is not None:
                corner = x, top + (tallest - picture.height) // 2
                box = (*corner, corner[0] + picture.width, corner[1] + picture.height)
                self.pictures.append((picture, box))
                if cell.right is False:
                    self.frames.append(box)
                below = top + tallest + GAP // 2
            bottoms.append(self._caption(cell, x, below, column.width))
        return max(bottoms)

    def _caption(self, cell: Cell, left: int, top: int, width: int) -> int:
        if cell.right is None:
            return self.write(cell.text, (left, top), width)
        self.marks.append((cell.right, (left, top, left + self.size, top + self.size)))
        indent = round(1.4 * self.size)
        colour = RIGHT if cell.right else WRONG
        return self.write(cell.text, (left + indent, top), width - indent, colour=colour)

    @property
    def said(self) -> tuple[str, ...]:
        """All texts, each in one line, in the order that they were placed in."""
        return tuple(" ".join(words.lines) for words in self.texts)

    def draw(self) -> Image.Image:
        """Return the sheet as a picture in mode RGB."""
        sheet = Image.new("RGB", self.extent, PAPER)
        drawing = ImageDraw.Draw(sheet)
        for rule in self.rules:
            drawing.rectangle(rule, fill=RULE)
        for picture, (left, top, *_) in self.pictures:
            sheet.paste(picture.convert("RGB"), (left, top))
        for left, top, right, bottom in self.frames:
            drawing.rectangle((left - 3, top - 3, right + 2, bottom + 2), outline=WRONG, width=3)
        for right, box in self.marks:
            _draw_mark(drawing, right, box)
        for words in self.texts:
            step = (words.box[3] - words.box[1]) / len(words.lines)
            for number, line in enumerate(words.lines):
                drawing.text((words.box[0], words.box[1] + number * step), line, fill=words.colour, font=words.font)
        return sheet


def _lefts(columns: Sequence[Column], left: int) -> list[int]:
    return [left + sum(column.width + GAP for column in columns[:number]) for number in range(len(columns))]


def _draw_mark(drawing: ImageDraw.ImageDraw, right: bool, box: Box) -> None:
    """Draw a tick or a cross: fonts have them or not, and colour alone says nothing to some."""
    left, top, side = box[0], box[1] + 1, box[2] - box[0] - 2
    width = max(2, side // 6)

    def line(*points: tuple[float, float]) -> None:
        drawing.line([(left + x * side, top + y * side) for x, y in points], RIGHT if right else WRONG, width, "curve")

    if right:
        line((0.05, 0.55), (0.38, 0.9), (0.95, 0.15))
    else:
        line((0.1, 0.12), (0.9, 0.92))
        line((0.9, 0.12), (0.1, 0.92))

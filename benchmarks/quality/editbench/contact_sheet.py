"""Draws answers on one sheet: reference, answer and known answer beside each other, failures framed in red."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .evaluation import Answer
from .render import Pixels

CELL = 160
"""The side in pixels of the square that a picture of the small world, 160 at its longer side, is centred in."""
GAP = 6
TEXT_LINES = 3
LINE = 13
TEXT_WIDTH = 78
"""The number of characters in a line, at a font of this size."""
FONT_SIZE = 11
RED, GREY, BLACK = (205, 20, 20), (225, 225, 225), (20, 20, 20)
TILE = (3 * CELL + 2 * GAP, CELL + TEXT_LINES * LINE)


def contact_sheet(answers: Sequence[Answer], columns: int = 4) -> Image.Image:
    """Draw one tile per answer, in rows."""
    columns = min(columns, len(answers))
    rows = -(-len(answers) // columns)
    width, height = TILE[0] + 4 * GAP, TILE[1] + 4 * GAP
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for i, one in enumerate(answers):
        sheet.paste(_tile(one), ((i % columns) * width, (i // columns) * height))
    return sheet


def _tile(one: Answer) -> Image.Image:
    sample = one.case.sample
    tile = Image.new("RGB", (TILE[0] + 4 * GAP, TILE[1] + 4 * GAP), "white")
    drawing = ImageDraw.Draw(tile)
    if not one.score.success:
        drawing.rectangle((GAP // 2, GAP // 2, tile.width - GAP, tile.height - GAP), outline=RED, width=3)
    for i, picture in enumerate((sample.reference(), one.picture, sample.target())):
        _place(tile, picture, 2 * GAP + i * (CELL + GAP))
    verdict = "" if one.score.success else "FAILED: "
    lines = textwrap.wrap(f"{one.case.number}  {verdict}{sample.instruction}", TEXT_WIDTH)[:TEXT_LINES]
    font = ImageFont.load_default(FONT_SIZE)
    colour = BLACK if one.score.success else RED
    drawing.text((2 * GAP, 2 * GAP + CELL + 2), "\n".join(lines), fill=colour, font=font, spacing=1)
    return tile


def _place(tile: Image.Image, picture: Pixels | None, left: int) -> None:
    if picture is None:
        picture = np.full((CELL // 4, CELL // 4, 3), GREY, np.uint8)
    height, width = picture.shape[:2]
    tile.paste(Image.fromarray(picture), (left + (CELL - width) // 2, 2 * GAP + (CELL - height) // 2))

"""Draws edits in a row on one sheet: what each should give, and what each road gave, wrong pictures framed in red."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .contact_sheet import BLACK, CELL, FONT_SIZE, GAP, LINE, RED, TEXT_WIDTH
from .drift import Drift
from .roads import Shown
from .samples import EditSample

HEAD_LINES = 4
LABEL = 90
"""The width in pixels of what stands before each row."""


def chain_sheet(drift: Drift) -> Image.Image:
    """Draw the first chain: a column per turn under its instruction, a row for what is right and one per road.

    Below each picture stands how far its untouched pixels are from the first picture's, in dB.
    """
    samples = drift.samples
    rows = [("known answer", [Shown(sample.target(), True, None) for sample in samples])]
    rows += [(f"as {road.carry}", list(road.shown)) for road in drift.roads]
    head, row_height = HEAD_LINES * LINE + GAP, CELL + LINE + 2 * GAP
    sheet = Image.new("RGB", (LABEL + (len(samples) + 1) * (CELL + GAP), head + len(rows) * row_height), "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    _heads(drawing, font, samples)
    first = samples[0].reference()
    assert first is not None
    for number, (label, shown) in enumerate(rows):
        top = head + number * row_height
        drawing.text((GAP, top + CELL // 2), label, fill=BLACK, font=font)
        for column, one in enumerate([Shown(first, True, None), *shown]):
            left = LABEL + column * (CELL + GAP)
            height, width = one.picture.shape[:2]
            place = left + (CELL - width) // 2, top + (CELL - height) // 2
            sheet.paste(Image.fromarray(one.picture), place)
            if not one.success:
                box = (place[0] - 3, place[1] - 3, place[0] + width + 2, place[1] + height + 2)
                drawing.rectangle(box, outline=RED, width=3)
            if one.untouched_db is not None:
                words = f"{one.untouched_db:.1f} dB" + ("" if one.success else ", wrong")
                drawing.text((left + GAP, top + CELL), words, fill=BLACK if one.success else RED, font=font)
    return sheet


def _heads(
    drawing: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, samples: Sequence[EditSample]
) -> None:
    """Write the number and instruction of each turn above its column."""
    characters = TEXT_WIDTH * CELL // (3 * CELL + 2 * GAP)
    for column, words in enumerate(["the picture", *(sample.instruction for sample in samples)]):
        lines = textwrap.wrap(f"{column}  {words}" if column else words, characters)[:HEAD_LINES]
        drawing.text((LABEL + column * (CELL + GAP), GAP // 2), "\n".join(lines), fill=BLACK, font=font, spacing=1)

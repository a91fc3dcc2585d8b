"""Draws edits in a row on one sheet: what each should give, and what each road gave, each marked right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

from ...sheets import Cell, Column, Sheet, Table
from .contact_sheet import PICTURE, as_picture
from .drift import Drift
from .roads import Shown

LABEL = 110
"""The width in pixels of what stands before each row."""
BAND = 7
"""The most columns beside each other; the next stand below them."""
NOTE = (
    "dB: how near the pixels that no edit so far may touch are to the first picture's (PSNR; more is nearer). A "
    "picture is wrong as well where a mistake of an earlier turn is left in it"
)


def chain_sheet(drift: Drift, bundle: str, made_with: str) -> Sheet:
    """Return a sheet of the first chain: a column per turn under its instruction, a row for what is right and per road.

    Args:
        drift: What came of the chains.
        bundle: What the sheet calls the bundle.
        made_with: What the pictures were made with, as `contact_sheet.describe` says.
    """
    samples = drift.samples
    first = samples[0].reference()
    assert first is not None
    begun = Shown(first, True, None)
    known = (Shown(one.target(), True, None) for one in samples)
    rows: list[tuple[str, list[Shown]]] = [("known answer", [begun, *known])]
    rows += [(f"carried as {road.carry}", [begun, *road.shown]) for road in drift.roads]
    heads = ["the picture", *(f"{number}. {one.instruction}" for number, one in enumerate(samples, 1))]
    return Sheet(
        title=f"Edits in a row by {bundle}: the first chain",
        notes=(made_with, NOTE),
        tables=tuple(_band(heads, rows, slice(start, start + BAND)) for start in range(0, len(heads), BAND)),
    )


def _band(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Shown]]], shown: slice) -> Table:
    """Return the columns of some of the turns, with the names of the rows before them."""
    columns = (Column(head="", width=LABEL), *(Column(head=head, width=PICTURE) for head in heads[shown]))
    return Table(
        columns=columns,
        rows=tuple((Cell(words=label), *map(_cell, pictures[shown])) for label, pictures in rows),
    )


def _cell(one: Shown) -> Cell:
    judged = one.untouched_db is not None
    words = f"{one.untouched_db:.1f} dB" if judged else ""
    return Cell(picture=as_picture(one.picture), right=one.success if judged else None, words=words)

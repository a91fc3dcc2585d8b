"""Holds a table of words, and writes figures in it."""

from __future__ import annotations

from dataclasses import dataclass

from ...engine.byte_sizes import human_bytes
from .records import Spread

ENOUGH = 20
"""The number of values from which on their 95th percentile lies between measured ones, below the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Holds a table: the first column is names, the others are figures; `note` says what they are."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def spread_text(spread: Spread | None) -> str:
    """Return the 95th and 99th percentile, or of few values the range; "" for None."""
    if spread is None:
        return ""
    if spread.count < ENOUGH:
        return f"{number_text(spread.least)} to {number_text(spread.most)}"
    return f"{number_text(spread.p95)}, {number_text(spread.p99)}"


def count_text(value: float) -> str:
    """Return a count with three digits and a unit of a thousand's power."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:,.2f} {unit}"
    return f"{value:.0f}"


def number_text(value: float | None) -> str:
    """Return a figure with two decimals below 100, with none from there on; "" for None."""
    return "" if value is None else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"


def bytes_text(value: int | None) -> str:
    """Return a size for people; "" for None."""
    return "" if value is None else human_bytes(value)

"""Draws a comparison as one PNG: error by step, by block and by layer; with Pillow, which is there already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .report import Comparison

WIDTH, HEIGHT = 900, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 40
INK, GRID = (30, 30, 30), (215, 215, 215)
COLORS = ((31, 96, 170), (200, 90, 30), (60, 140, 70), (140, 70, 150), (120, 120, 120))


def draw(comparison: Comparison) -> Image.Image:
    """Draw panels below each other.

    They are the latents' SQNR after each step, one line per case; the SQNR of blocks; the layers' noise.
    """
    steps = {f"seed {case.seed}": [step.sqnr_db for step in case.steps] for case in comparison.cases}
    streams: dict[str, list[float]] = {}
    for error in comparison.blocks:
        streams.setdefault(error.stream or "single blocks", []).append(error.sqnr_db)
    panels = [
        _lines("latents after each step, SQNR in dB", steps),
        _lines("output of each block, SQNR in dB", streams),
    ]
    if comparison.layers:
        shares = [100 * error.share for error in comparison.layers]
        panels.append(_lines("layers from the worst, % of the noise", {"layers": shares}, from_zero=True))
    sheet = Image.new("RGB", (WIDTH, HEIGHT * len(panels)), "white")
    for index, panel in enumerate(panels):
        sheet.paste(panel, (0, index * HEIGHT))
    return sheet


def side_by_side(one: Image.Image, other: Image.Image) -> Image.Image:
    """Draw the reference's picture, the other's, and their difference, eight times as strong around grey."""
    change = np.asarray(other, np.int32) - np.asarray(one, np.int32)
    difference = Image.fromarray((128 + 8 * change).clip(0, 255).astype(np.uint8))
    sheet = Image.new("RGB", (3 * one.width + 2 * 8, one.height), "white")
    for index, picture in enumerate((one, other, difference)):
        sheet.paste(picture, (index * (one.width + 8), 0))
    return sheet


def _lines(
    title: str, lines: dict[str, Sequence[float]] | dict[str, list[float]], *, from_zero: bool = False
) -> Image.Image:
    panel = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default()
    values = [value for line in lines.values() for value in line if math.isfinite(value)]
    low, high = _scale(values, from_zero)
    most = max((len(line) for line in lines.values()), default=1)

    def place(index: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (index / (most - 1) if most > 1 else 0.5)
        bounded = min(max(value, low), high)  # no noise at all is drawn at the top
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - bounded) / (high - low)

    for part in range(5):
        value = low + (high - low) * part / 4
        y = place(0, value)[1]
        pen.line((LEFT, y, WIDTH - RIGHT, y), fill=GRID)
        pen.text((8, y - 6), f"{value:.3g}", fill=INK, font=font)
    pen.text((LEFT, 12), title, fill=INK, font=font)
    pen.text((LEFT, HEIGHT - 24), "1", fill=INK, font=font)
    pen.text((WIDTH - RIGHT - 24, HEIGHT - 24), str(most), fill=INK, font=font)
    for number, (name, line) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        points = [place(index, value) for index, value in enumerate(line)]
        if len(points) > 1:
            pen.line(points, fill=color, width=2)
        for x, y in points:
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color)
        pen.text((WIDTH - 150, 12 + 13 * number), name, fill=color, font=font)
    return panel


def _scale(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    """Return the lower and upper end of an axis that shows all values."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = 0.0 if from_zero else math.floor(low / 5) * 5
    high = high if from_zero else math.ceil(high / 5) * 5
    return (low, high) if high > low else (low - 1, low + 1)

"""Draws where the time of a request goes: one stacked bar per engine."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .records import Run
from .sections import STAGES

WIDTH, BAR, GAP, LEFT, RIGHT, TOP, LEGEND = 1000, 44, 26, 190, 90, 46, 60
INK, PAPER = (30, 30, 30), (255, 255, 255)
COLOURS = {
    "tokenize": (120, 120, 120),
    "prepare": (170, 170, 170),
    "text": (140, 70, 150),
    "encode": (60, 140, 70),
    "condition": (200, 160, 40),
    "denoise": (31, 96, 170),
    "decode": (200, 90, 30),
    "host_gap": (215, 60, 60),
}


def draw(runs: Sequence[Run]) -> Image.Image:
    """Draw the medians of the stages; all bars have one scale."""
    sheet = Image.new("RGB", (WIDTH, TOP + len(runs) * (BAR + GAP) + LEGEND), PAPER)
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(13)
    pen.text((LEFT, 12), "a warm request, milliseconds", INK, font=font)
    sums = [sum(max(0.0, run.warm[stage].p50) for stage in STAGES if stage in run.warm) for run in runs]
    longest = max(*sums, *(run.warm["total"].p50 for run in runs))  # a sum of medians is not the median of sums
    scale = (WIDTH - LEFT - RIGHT) / longest
    for row, run in enumerate(runs):
        top = TOP + row * (BAR + GAP)
        pen.text((LEFT - 10, top + BAR / 2), run.engine, INK, font=font, anchor="rm")
        x = float(LEFT)
        for stage in STAGES:
            width = max(0.0, run.warm[stage].p50) * scale if stage in run.warm else 0.0
            pen.rectangle((x, top, x + width, top + BAR), COLOURS[stage])
            if width > 60:
                pen.text((x + width / 2, top + BAR / 2), f"{run.warm[stage].p50:,.0f}", PAPER, font=small, anchor="mm")
            x += width
        pen.text((x + 8, top + BAR / 2), f"{run.warm['total'].p50:,.0f}", INK, font=font, anchor="lm")
    x, y = float(LEFT), sheet.height - LEGEND + 20
    for stage in (stage for stage in STAGES if any(stage in run.warm for run in runs)):
        pen.rectangle((x, y, x + 14, y + 14), COLOURS[stage])
        pen.text((x + 20, y + 7), stage, INK, font=small, anchor="lm")
        x += 34 + pen.textlength(stage, font=small)
    return sheet

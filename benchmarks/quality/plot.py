"""Draws a comparison as one PNG: error by step, by block and by layer; and puts pictures beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ..figures import DPI, INK, PALETTE, QUIET, SMALL, TEXT, TITLE, new_figure, style_axes
from .report import Comparison

WIDTH, PANEL = 9.0, 3.0
"""The width of the plot and the height of a panel, in inches."""
MARKED = 60
"""The most points of a line that get a mark each."""
PANEL_PIXELS = round(PANEL * DPI)


def draw(comparison: Comparison) -> Figure:
    """Draw panels below each other.

    They are the latents' SQNR after each step, one line per case; the SQNR of blocks; the layers' noise.
    """
    steps = {f"seed {case.seed}": [step.sqnr_db for step in case.steps] for case in comparison.cases}
    streams: dict[str, list[float]] = {}
    for error in comparison.blocks:
        streams.setdefault(error.stream or "single blocks", []).append(error.sqnr_db)
    figure = new_figure(WIDTH, PANEL * (3 if comparison.layers else 2))
    panels = figure.subplots(3 if comparison.layers else 2, squeeze=False)[:, 0]
    _decibels(panels[0], steps, "latents after each step", "step")
    _decibels(panels[1], streams, "output of each block", "block")
    if comparison.layers:
        _shares(panels[2], [100 * error.share for error in comparison.layers])
    return figure


def side_by_side(one: Image.Image, other: Image.Image) -> Image.Image:
    """Draw the reference's picture, the other's, and their difference, eight times as strong around grey."""
    change = np.asarray(other, np.int32) - np.asarray(one, np.int32)
    difference = Image.fromarray((128 + 8 * change).clip(0, 255).astype(np.uint8))
    sheet = Image.new("RGB", (3 * one.width + 2 * 8, one.height), "white")
    for index, picture in enumerate((one, other, difference)):
        sheet.paste(picture, (index * (one.width + 8), 0))
    return sheet


def _decibels(axes: Axes, lines: Mapping[str, Sequence[float]], title: str, what: str) -> None:
    finite = [value for line in lines.values() for value in line if math.isfinite(value)]
    top = max(finite, default=1.0)
    for number, (name, line) in enumerate(lines.items()):
        shown = [min(value, top) for value in line]  # no noise at all is drawn at the top
        _line(axes, shown, PALETTE[number % len(PALETTE)], name)
    _finish(axes, title, what, "SQNR, dB")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1, 1))


def _shares(axes: Axes, shares: Sequence[float]) -> None:
    _line(axes, shares, PALETTE[0], "layers")
    axes.set_ylim(bottom=0)
    _finish(axes, "layers from the worst", "layer", "share of the noise, %")


def _line(axes: Axes, values: Sequence[float], colour: str, name: str) -> None:
    marker = "o" if len(values) <= MARKED else ""
    axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.5, marker=marker, markersize=4, label=name)


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    style_axes(axes, grid="y")
    axes.set_xlim(left=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_title(title, loc="left", fontsize=TITLE, color=INK)
    axes.set_xlabel(x, fontsize=TEXT, color=QUIET)
    axes.set_ylabel(y, fontsize=TEXT, color=QUIET)

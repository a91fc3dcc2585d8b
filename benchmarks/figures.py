"""Defines the look that all charts share; figures are objects, and matplotlib's global state is left alone."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from .lettering import INK, QUIET

GRID, PAPER = "#dddddd", "#ffffff"
PALETTE = ("#1f60aa", "#c85a1e", "#3c8c46", "#8c4696", "#787878")
"""The colours of lines that are told apart by colour alone."""
TEXT, SMALL, TITLE = 9.0, 8.0, 10.0
"""The sizes of letters, in points."""
DPI = 150
MARGIN = 0.3
"""The margin at the left and the right in inches; above and below there is a quarter of it."""


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches, whose parts make room for each other."""
    layout = ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN / 4)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, *, grid: str) -> None:
    """Draw quiet frames and a grid across the axis ("x" or "y") that values are read from, behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(labelsize=SMALL, color=QUIET, labelcolor=INK)
    axes.grid(axis="x" if grid == "x" else "y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()

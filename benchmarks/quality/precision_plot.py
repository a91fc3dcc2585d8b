"""Draws loss over seconds: a line per precision and solver through its numbers of steps, whole and half cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter

from ..figures import INK, PALETTE, QUIET, SMALL, TEXT, TITLE, new_figure, style_axes

WIDTH, HEIGHT = 9.0, 5.2
"""The size of the plot in inches."""
MARKERS = {"euler": "o", "ab2": "s"}
"""The marker of each solver."""

Rows = Sequence[Mapping[str, object]]
"""The rows of `precision_table.table`."""


def draw(rows: Rows, machine: str) -> Figure:
    """Draw the rows that have seconds; each point has the number of its steps beside it.

    Args:
        rows: The table.
        machine: The machine whose seconds they are, in words.
    """
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    timed = [row for row in rows if row["reckoned_s"] is not None]
    for number, precision in enumerate(dict.fromkeys(row["precision"] for row in timed)):
        for solver, cached in product(MARKERS, (False, True)):
            line = [
                row
                for row in timed
                if (row["precision"], row["solver"]) == (precision, solver)
                and (row["steps"] != row["whole_steps"]) is cached
            ]
            if line:
                name = f"{precision}, {solver}{', half cached' if cached else ''}"
                _line(axes, line, PALETTE[number % len(PALETTE)], MARKERS[solver], name, cached=cached)
    style_axes(axes, grid="y")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter("")
    axes.set_title("loss of pictures over seconds per picture", loc="left", fontsize=TITLE, color=INK)
    axes.set_xlabel(f"seconds per picture ({machine})", fontsize=TEXT, color=QUIET)
    axes.set_ylabel("PSNR beside many steps of the reference, dB", fontsize=TEXT, color=QUIET)
    axes.legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _line(axes: Axes, rows: Rows, colour: str, marker: str, name: str, *, cached: bool) -> None:
    points = [(float(str(row["reckoned_s"])), float(str(row["pixels_db"])), row["steps"]) for row in rows]
    axes.plot(
        [seconds for seconds, _, _ in points],
        [loss for _, loss, _ in points],
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.2,
        linestyle="--" if cached else "-",
        markerfacecolor="white" if cached else colour,
        label=name,
    )
    for seconds, loss, steps in points:
        axes.annotate(
            str(steps), (seconds, loss), xytext=(3, 3), textcoords="offset points", color=colour, fontsize=SMALL - 2
        )

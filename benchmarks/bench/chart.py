"""Draws where the time of a request goes: one stacked bar per engine."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from matplotlib.figure import Figure

from ..figures import INK, PAPER, QUIET, SMALL, TEXT, TITLE, new_figure, style_axes
from ..lettering import drawable
from .records import EngineRun
from .sections import STAGES

WIDTH, ROW, AROUND, LINE = 9.0, 0.55, 1.7, 0.16
"""The width of the chart, the heights of a bar with its gap, of title, axis and legend, and of a line: in inches."""
CHARACTERS = 110
"""The most characters of a line below the title."""
COLOURS = {
    "tokenize": "#787878",
    "prepare": "#aaaaaa",
    "text": "#8c4696",
    "encode": "#3c8c46",
    "condition": "#c8a028",
    "denoise": "#1f60aa",
    "decode": "#c85a1e",
    "host_gap": "#d73c3c",
}
LABELLED = 0.06
"""The share of the axis from which a stage's bar has room for its number."""


def draw(runs: Sequence[EngineRun], about: Sequence[str] = ()) -> Figure:
    """Draw the medians of the stages; all bars have one scale.

    Args:
        runs: The engines' runs of one request.
        about: What the title says below itself: the bundle, the machine, the request.
    """
    lines = [line for text in about for line in wrap(drawable(text), CHARACTERS)]
    figure = new_figure(WIDTH, AROUND + LINE * len(lines) + ROW * len(runs))
    axes = figure.add_subplot()
    sums = [sum(_median(run, stage) for stage in STAGES) for run in runs]
    longest = max(*sums, *(run.warm["total"].p50 for run in runs))  # a sum of medians is not the median of sums
    rows = range(len(runs))
    left = [0.0] * len(runs)
    for stage in (stage for stage in STAGES if any(stage in run.warm for run in runs)):
        widths = [_median(run, stage) for run in runs]
        bars = axes.barh(rows, widths, 0.62, left, color=COLOURS[stage], label=stage)
        numbers = [f"{width:,.0f}" if width > LABELLED * longest else "" for width in widths]
        axes.bar_label(bars, numbers, label_type="center", color=PAPER, fontsize=SMALL)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, run, end in zip(rows, runs, left, strict=True):
        total = f"{run.warm['total'].p50:,.0f}"
        axes.annotate(
            total, (end, row), xytext=(6, 0), textcoords="offset points", va="center", color=INK, fontsize=TEXT
        )
    style_axes(axes, grid="x")
    axes.set_yticks(rows, [run.engine for run in runs], fontsize=TEXT)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * longest)  # room for the totals
    axes.set_xlabel(f"milliseconds, median of {runs[0].warm['total'].count} requests", fontsize=TEXT, color=QUIET)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_ylabel("engine", fontsize=TEXT, color=QUIET)
    title = "Where the time of a warm request goes; at the end of each bar the total"
    figure.suptitle(title, fontsize=TITLE, color=INK, x=0.01, ha="left")
    if lines:
        axes.set_title("\n".join(lines), loc="left", fontsize=SMALL, color=QUIET)
    figure.legend(loc="outside lower center", ncols=len(STAGES), frameon=False, fontsize=SMALL, handlelength=1)
    return figure


def _median(run: EngineRun, stage: str) -> float:
    """Return a stage's median, 0 where it has none.

    The host's gap is a difference of clocks, and may be less than nothing by their error.
    """
    return max(0.0, run.warm[stage].p50) if stage in run.warm else 0.0

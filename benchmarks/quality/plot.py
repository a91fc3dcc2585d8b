"""Draws where a quantized bundle's error comes from: by step, by block of each kind, by kind of layer, by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill, shorten

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..figures import INK, PALETTE, QUIET, SMALL, TEXT, TITLE, new_figure, style_axes
from ..lettering import drawable
from .report import Comparison

WIDTH, PANEL, BAR, AROUND, HEAD = 9.0, 2.6, 0.2, 0.9, 0.7
"""The width of the figure, the heights of a panel of lines, of a bar, around bars and above all panels: in inches."""
MARKED = 60
"""The most points of a line that get a mark each."""
WORST = 15
"""The number of worst layers that have a bar."""
LEGEND_CHARACTERS, LEGEND_LINE = 56, 30
"""The most characters of a line's name, and of a line of the legend."""
STACKS: Mapping[str, str] = {"transformer_blocks": "double-stream", "single_transformer_blocks": "single-stream"}
"""The kinds of blocks by the names of their stacks."""
OTHER = "other"
HINT = "SQNR: the reference's energy over the difference's. More is nearer; 20 dB more is a tenth of the error."

Panel = tuple[float, Callable[[Axes], None]]
"""A panel's height in inches, and what draws it."""


def draw(comparison: Comparison, reference: str, other: str) -> Figure:
    """Draw panels below each other, each of one thing: steps, a kind of block, a kind of block's layers, worst layers.

    Args:
        comparison: What was found.
        reference: What the figure calls the bundle that the other is held against.
        other: What it calls the other.
    """
    panels = [*_line_panels(comparison), *_bar_panels(comparison)]
    heights = [height for height, _ in panels]
    figure = new_figure(WIDTH, HEAD + sum(heights))
    axes = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for one, (_, draw_panel) in zip(axes, panels, strict=True):
        draw_panel(one)
    recipe = f" ({comparison.recipe})" if comparison.recipe else ""
    title = drawable(f"What quantization costs: {other}{recipe} beside {reference}")
    figure.suptitle(f"{title}\n{HINT}", fontsize=TEXT, color=INK, x=0.01, ha="left")
    return figure


def block_of(name: str) -> tuple[str, int, str]:
    """Return a layer's kind of block, the block's number, and its name in the block: ("single-stream", 3, "proj_out").

    A layer in no block has the number -1 and its whole name.
    """
    stack, _, rest = name.partition(".")
    number, _, layer = rest.partition(".")
    return (STACKS[stack], int(number), layer) if stack in STACKS and number.isdecimal() else (OTHER, -1, name)


def _line_panels(comparison: Comparison) -> list[Panel]:
    steps = {
        _legend(f"seed {case.seed}, {case.prompt}"): [(step.step, step.sqnr_db) for step in case.steps]
        for case in comparison.cases
    }
    kinds: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for error in comparison.blocks:
        kind, number, _ = block_of(error.block)
        stream = f"{error.stream} stream" if error.stream else "both streams in one"
        kinds.setdefault(kind, {}).setdefault(stream, []).append((number, error.sqnr_db))
    panels: list[Panel] = [(PANEL, lambda axes: _lines(axes, steps, "Latents after each step", "step"))]
    for kind, lines in kinds.items():
        title = f"Output of each {kind} block, all error up to there included"

        def draw_lines(axes: Axes, lines: Mapping[str, Points] = lines, title: str = title, kind: str = kind) -> None:
            _lines(axes, lines, title, f"{kind} block")

        panels.append((PANEL, draw_lines))
    return panels


def _legend(name: str) -> str:
    return fill(shorten(drawable(name), LEGEND_CHARACTERS, placeholder=" ..."), LEGEND_LINE)


def _bar_panels(comparison: Comparison) -> list[Panel]:
    kinds: dict[str, dict[str, list[float]]] = {kind: {} for kind in (*STACKS.values(), OTHER)}
    for error in comparison.layers:
        kind, _, layer = block_of(error.layer)
        kinds.setdefault(kind, {}).setdefault(layer, []).append(100 * error.share)
    panels: list[Panel] = []
    for kind, layers in kinds.items():
        if not layers:
            continue
        bars = {
            f"{layer} ({len(shares)} layer{'s' * (len(shares) > 1)})": sum(shares) for layer, shares in layers.items()
        }
        title = "Layers in no block" if kind == OTHER else f"Layers of {kind} blocks, each kind summed over the blocks"
        panels.append(_bars(dict(sorted(bars.items(), key=lambda bar: -bar[1])), title))
    worst = {error.layer: 100 * error.share for error in comparison.layers[:WORST]}
    if worst:
        panels.append(_bars(worst, f"The {len(worst)} worst of {len(comparison.layers)} quantized layers"))
    return panels


Points = Sequence[tuple[int, float]]
"""The points of a line: what is counted, and decibels."""


def _lines(axes: Axes, lines: Mapping[str, Points], title: str, what: str) -> None:
    """Draw a line per name; what has no error at all is a hollow triangle at the top."""
    finite = [value for line in lines.values() for _, value in line if math.isfinite(value)]
    top, exact = max(finite, default=1.0), None
    for number, (name, line) in enumerate(lines.items()):
        colour = PALETTE[number % len(PALETTE)]
        marker = "os^Dv"[number % 5] if len(line) <= MARKED else ""
        axes.plot(*zip(*((x, min(y, top)) for x, y in line), strict=True), color=colour, linewidth=1.5, marker=marker,
                  markersize=4, label=name)  # fmt: skip
        if free := [x for x, y in line if not math.isfinite(y)]:
            exact = axes.plot(free, [top] * len(free), "^", markersize=9, markerfacecolor="none", color=INK)[0]
    if exact is not None:
        exact.set_label("no error at all")
    _finish(axes, title, grid="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(x=0.03, y=0.12)
    axes.set_xlabel(what, fontsize=TEXT, color=QUIET)
    axes.set_ylabel("SQNR, dB", fontsize=TEXT, color=QUIET)
    axes.legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1, 1))


def _bars(bars: Mapping[str, float], title: str) -> Panel:
    def draw_bars(axes: Axes) -> None:
        drawn = axes.barh(range(len(bars)), list(bars.values()), 0.7, color=PALETTE[0])
        axes.bar_label(drawn, [f"{value:.1f}" for value in bars.values()], padding=3, fontsize=SMALL, color=INK)
        _finish(axes, title, grid="x")
        axes.set_yticks(range(len(bars)), [drawable(name) for name in bars], fontsize=SMALL)
        axes.set_ylim(max(len(bars), 3) - 0.5, -0.5)  # the first at the top, and one bar alone no thicker
        axes.set_xlim(0, 1.1 * max(*bars.values(), 1e-9))
        axes.set_xlabel("share of all layers' noise, %", fontsize=TEXT, color=QUIET)
        axes.set_ylabel("layer", fontsize=TEXT, color=QUIET)

    return AROUND + BAR * max(len(bars), 3), draw_bars


def _finish(axes: Axes, title: str, *, grid: str) -> None:
    style_axes(axes, grid=grid)
    axes.set_title(title, loc="left", fontsize=TITLE, color=INK)

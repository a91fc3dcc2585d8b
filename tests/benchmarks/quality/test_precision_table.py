"""The table of precisions, steps, solvers and cached steps: rows, seconds, and the way through small bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from once_per_run import OncePerRun

from kontext_trt import Bundle
from kontext_trt.benchmarks.bench.reckoning import Reckoning
from kontext_trt.benchmarks.figures import png
from kontext_trt.benchmarks.quality.editbench.cases import cases
from kontext_trt.benchmarks.quality.precision_plot import draw
from kontext_trt.benchmarks.quality.precision_table import Measured, measure, precision_of, seconds_of, table
from kontext_trt.benchmarks.quality.step_table import Setting, Tally, settings
from kontext_trt.engine.components import Precision
from kontext_trt.runtime.inputs.schedules import Solver

CHECKPOINT = Path(__file__).parents[3] / "examples/small_kontext/checkpoint"
SETTINGS = settings((4, 8))


class Reckoned(Reckoning):
    """A step takes a second, in FP8 half of one, cached a tenth; all else as many tenths as there are steps."""

    def __init__(self) -> None:
        pass

    def step_seconds(self, recipe: Any, *, cached: bool = False) -> float | None:
        return 0.1 if cached else {"bf16": 1.0, "fp8": 0.5}.get(recipe.name)

    def other_seconds(self, steps: int) -> float | None:
        return steps / 10


def tallies() -> dict[Setting, Tally]:
    made = {setting: Tally(successes=1, answers=2) for setting in SETTINGS}
    for number, tally in enumerate(made.values()):
        tally.latents += (1000.0, 1.0 + number)
        tally.pixels += (10000.0, 1.0 + number)
    return made


FOUND = [Measured(precision=name, tallies=tallies()) for name in ("fp32", "bf16", "fp8", "nvfp4")]


def test_seconds_are_those_of_the_steps():
    whole, half = Setting(steps=8, solver=Solver.AB2), Setting(steps=8, solver=Solver.AB2, half=True)
    assert seconds_of(Reckoned(), "fp8", whole) == pytest.approx(0.8 + 8 * 0.5)
    assert seconds_of(Reckoned(), "bf16", half) == pytest.approx(0.8 + 4 * 1.0 + 4 * 0.1)
    assert seconds_of(Reckoned(), "nvfp4", whole) is None, "the GPU has no rate for it"
    assert seconds_of(Reckoned(), "fp32", whole) is None, "no recipe"


def test_a_row_per_precision_and_setting():
    made = table(FOUND, Reckoned())
    assert len(made) == 4 * len(SETTINGS)
    assert made[len(SETTINGS)] == {
        "precision": "bf16", "steps": 4, "solver": "euler", "whole_steps": 4, "latents_db": 30.0, "pixels_db": 40.0,
        "success_percent": 50.0, "reckoned_s": 4.4,
    }  # fmt: skip
    assert {row["reckoned_s"] for row in table(FOUND, None)} == {None}


def test_the_plot_has_a_line_per_precision_solver_and_mask():
    figure = draw(table(FOUND, Reckoned()), "made up")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines][:5] == [
        "bf16, euler", "bf16, euler, half cached", "bf16, ab2", "bf16, ab2, half cached", "fp8, euler",
    ]  # fmt: skip
    assert len(axes.lines) == 8, "what has no seconds is left out"
    assert list(axes.lines[0].get_xdata()) == pytest.approx([4.4, 8.8])
    assert axes.get_xlabel() == "seconds per picture (made up)"
    assert png(figure).startswith(b"\x89PNG")


def test_precisions_have_the_names_of_recipes(bundle: Bundle, tiny_quantized: Callable[[str], Bundle]):
    assert precision_of(bundle) == "fp32"
    assert precision_of(tiny_quantized("fp8")) == "fp8"


@pytest.mark.check  # the small Kontext exported, and run by torch
def test_a_bundle_beside_itself(once_per_run: OncePerRun):
    """With as many steps as the reference it is the reference; with fewer it is not."""
    from kontext_trt.export.export import ExportOptions, export_bundle

    options = ExportOptions(precision=Precision.FP32, step_cache=True, copy=True)
    path = once_per_run.make("small-caching", lambda path: export_bundle(CHECKPOINT, path, options))
    wanted = [Setting(steps=6, solver=Solver.AB2), Setting(steps=2, solver=Solver.EULER)]
    made = table(measure([Bundle.open(path)] * 2, cases(1), wanted, 6), None)
    assert [row["precision"] for row in made] == ["fp32"] * 4
    assert made[0]["pixels_db"] == made[2]["pixels_db"] == float("inf")
    assert 30 < float(str(made[1]["pixels_db"])) < 70

"""The table of steps, solvers and cached steps: its settings, its sums, and the way through a bundle that is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from once_per_run import OncePerRun
from PIL import Image

from kontext_trt import BundleError, Kontext, Request, RequestError
from kontext_trt.benchmarks.quality.editbench.cases import cases
from kontext_trt.benchmarks.quality.editbench.scene import SIZES
from kontext_trt.benchmarks.quality.step_table import Setting, measure, rows, settings, step_counts
from kontext_trt.engine.components import Precision
from kontext_trt.runtime.inputs.schedules import Solver

CHECKPOINT = Path(__file__).parents[3] / "examples/small_kontext/checkpoint"


def test_every_setting_is_there_once() -> None:
    made = settings((1, 4))
    assert len(made) == len(set(made)) == 2 + 4
    assert {one.whole_steps for one in made} == {1, 2, 4}
    assert Setting(steps=5, solver=Solver.EULER, half=True).step_mask == (True, False, True, False, True)


class Answering:
    """Stands for a bundle of the small Kontext: its answers are the known ones with an error that falls with steps."""

    def __init__(self, features: Sequence[str] = ("step_cache",)) -> None:
        self.sizes = SIZES
        self.answers = {case.sample.instruction: case.sample.target() for case in cases(3)}
        self.asked: list[Request] = []
        self.bundle = SimpleNamespace(require=self._require)
        self._features = features

    def _require(self, feature: str) -> None:
        if feature not in self._features:
            raise BundleError(feature)

    def run(self, request: Request) -> Any:
        self.asked.append(request)
        target = self.answers[request.prompts[0]]
        steps = request.sampling.steps
        assert steps is not None
        error = 0 if steps == 40 else 64 // steps
        latents = np.ones((4, 64), np.float32) + np.float32(error / 64)
        return SimpleNamespace(
            outputs=[SimpleNamespace(latents=latents, image=Image.fromarray(np.minimum(target, 255 - error) + error))]
        )


def test_the_table_is_of_energies_over_all_requests() -> None:
    kontext: Any = Answering()
    made = rows(measure(kontext, cases(3), settings((1, 8)), 40))
    assert len(kontext.asked) == 3 * (1 + 2 + 4)
    by_steps = {(row["steps"], row["whole_steps"]): row for row in made}
    assert by_steps[8, 8]["latents_db"] == pytest.approx(20 * np.log10(8), abs=0.05)
    assert by_steps[8, 4]["success_percent"] == 100
    assert by_steps[1, 1]["success_percent"] == 0
    assert float(str(by_steps[1, 1]["pixels_db"])) < float(str(by_steps[8, 8]["pixels_db"]))
    assert {request.sampling.seed for request in kontext.asked} == {0}


def test_a_bundle_that_caches_no_steps_is_told_first() -> None:
    kontext: Any = Answering(features=())
    with pytest.raises(BundleError, match="step_cache"):
        measure(kontext, cases(1), settings((4,)), 8)
    assert not kontext.asked


@pytest.mark.parametrize("text", ["", "4,", "4;8", "0", "1001", "-1"])
def test_other_numbers_of_steps_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="steps are whole numbers from 1 to 1000 with commas between, not"):
        step_counts(text)
    assert step_counts("4,28") == (4, 28)


@pytest.mark.check  # the small Kontext exported for this alone
def test_a_tenth_of_the_table(once_per_run: OncePerRun) -> None:
    """More steps are nearer to the flow's end, and cached ones further from it: docs/measurements has the whole."""
    from kontext_trt.export.export import ExportOptions, export_bundle

    options = ExportOptions(precision=Precision.FP32, step_cache=True, copy=True)
    path = once_per_run.make("small-caching", lambda path: export_bundle(CHECKPOINT, path, options))
    with Kontext.open(path) as kontext:
        made = rows(measure(kontext, cases(6), settings((4, 14)), 40))
    db = {(row["steps"], row["solver"], row["whole_steps"]): float(str(row["latents_db"])) for row in made}
    for solver in ("euler", "ab2"):
        assert db[14, solver, 14] > db[4, solver, 4] + 3
        assert db[14, solver, 7] < db[14, solver, 14] - 3
        assert db[4, solver, 2] < db[4, solver, 4] - 3
    assert all(float(str(row["success_percent"])) == 100 for row in made if row["steps"] == row["whole_steps"])

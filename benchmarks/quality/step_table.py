"""Measures what fewer steps, the solver and cached steps cost: EditBench, and the distance to a flow of many steps.

    python -m kontext_trt.benchmarks.quality.step_table BUNDLE [--count N] [--steps 4,8] [--reference-steps N] [--json]

The bundle is one of the small Kontext, exported with --step-cache. Each request is made with every number of steps, by
both solvers, with all steps whole and with every other step cached; and once by `ab2` in many steps, which stands for
the flow's own end. All begin with the same noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...engine.components import STEP_CACHE
from ...engine.errors import RequestError
from ...engine.progress import Progress, Silent
from ...runtime.executors.options import Device, OnnxRuntimeOptions
from ...runtime.inputs.request import Request, Sampling
from ...runtime.inputs.schedules import MAX_STEPS, Solver
from ...runtime.kontext import Kontext
from ...runtime.outputs.result import Output
from ..program import positive, print_rows, run_main
from .editbench.cases import NUM_CASES, EditCase, cases
from .editbench.evaluation import check_model
from .editbench.scoring import score
from .metrics import decibels

STEPS = (4, 6, 8, 14, 28)
REFERENCE_STEPS = 160
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Describes how requests are sampled; `half` says that every other step is cached."""

    steps: int
    solver: Solver
    half: bool = False

    @property
    def step_mask(self) -> tuple[bool, ...] | None:
        return tuple(step % 2 == 0 for step in range(self.steps)) if self.half else None

    @property
    def whole_steps(self) -> int:
        return self.steps if self.step_mask is None else sum(self.step_mask)


@dataclass(slots=True)
class Tally:
    """Adds up what a setting's answers are: successes, and energies of what they are compared with and of errors."""

    successes: int = 0
    answers: int = 0
    latents: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    pixels: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def add(self, success: bool, found: Output, wanted: Output) -> None:
        self.answers += 1
        self.successes += success
        self.latents += _energies(wanted.latents, found.latents)
        one, other = np.asarray(wanted.image), np.asarray(found.image)
        self.pixels += (255.0**2 * one.size, _energies(one, other)[1])


def _energies(wanted: NDArray[np.generic], found: NDArray[np.generic]) -> tuple[float, float]:
    wide = wanted.astype(np.float64)
    return float(np.sum(wide**2)), float(np.sum((wide - found.astype(np.float64)) ** 2))


def settings(steps: Sequence[int]) -> list[Setting]:
    """Return every setting that is measured: numbers of steps, solvers, and whether half of the steps are cached."""
    return [
        Setting(steps=count, solver=solver, half=half)
        for count, solver, half in product(steps, Solver, (False, True))
        if count > 1 or not half
    ]


def measure(
    kontext: Kontext, chosen: Sequence[EditCase], wanted: Sequence[Setting], reference_steps: int
) -> dict[Setting, Tally]:
    """Return what answers to EditBench's cases are with each setting, beside the bundle's own of many steps.

    Raises:
        BundleError: The bundle is of another model, or its steps cannot be cached.
    """
    check_caching(kontext)
    return measure_beside(kontext, chosen, wanted, references(kontext, chosen, reference_steps))


def check_caching(kontext: Kontext) -> None:
    """Raise BundleError unless the bundle is of the small Kontext, and its steps can be cached."""
    check_model(kontext)
    kontext.bundle.require(STEP_CACHE)


def references(kontext: Kontext, chosen: Sequence[EditCase], steps: int) -> list[Output]:
    """Return the answers to cases in many steps of second order, which stand for the flow's own end."""
    return [_answer(kontext, case, Setting(steps=steps, solver=Solver.AB2)) for case in chosen]


def measure_beside(
    kontext: Kontext,
    chosen: Sequence[EditCase],
    wanted: Sequence[Setting],
    ends: Sequence[Output],
    progress: Progress | None = None,
) -> dict[Setting, Tally]:
    """Return what answers to cases are with each setting, beside an answer to each that may be another bundle's."""
    progress = progress or Silent()
    tallies = {setting: Tally() for setting in wanted}
    for case, end in zip(chosen, ends, strict=True):
        for setting, tally in tallies.items():
            output = _answer(kontext, case, setting)
            tally.add(score(case.sample, np.asarray(output.image)).success, output, end)
            progress.advance(1)
    return tallies


def _answer(kontext: Kontext, case: EditCase, setting: Setting) -> Output:
    sample = case.sample
    sampling = Sampling(
        size=sample.size, seed=SEED, steps=setting.steps, solver=setting.solver, step_mask=setting.step_mask
    )
    request = Request(prompt=sample.instruction, image=sample.reference(), sampling=sampling)
    return kontext.run(request).outputs[0]


def rows(tallies: dict[Setting, Tally]) -> list[dict[str, object]]:
    """Return the table: one row per setting, the distances in dB and the successes in percent."""
    return [
        {
            "steps": setting.steps,
            "solver": setting.solver.value,
            "whole_steps": setting.whole_steps,
            "latents_db": round(decibels(*tally.latents), 1),
            "pixels_db": round(decibels(*tally.pixels), 1),
            "success_percent": round(100 * tally.successes / tally.answers, 1),
        }
        for setting, tally in tallies.items()
    ]


def step_counts(text: str) -> tuple[int, ...]:
    """Return numbers of steps that text lists, with commas between. Raises RequestError for what is none."""
    counts = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= count <= MAX_STEPS for count in counts):
        raise RequestError(f"steps are whole numbers from 1 to {MAX_STEPS} with commas between, not {text!r}")
    return tuple(counts)


def main() -> None:
    """Measure the table of a bundle and print it."""
    parser = argparse.ArgumentParser(description="What fewer steps, the solver and cached steps cost.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=positive, default=NUM_CASES, help="the first requests of EditBench")
    parser.add_argument("--steps", default=",".join(map(str, STEPS)), help="numbers of steps")
    parser.add_argument("--reference-steps", type=positive, default=REFERENCE_STEPS)
    parser.add_argument("--threads", type=positive, help="of the CPU; all if left out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    wanted, chosen = settings(step_counts(arguments.steps)), cases(min(arguments.count, NUM_CASES))
    threads = None if arguments.threads is None else OnnxRuntimeOptions(device=Device.CPU, threads=arguments.threads)
    with Kontext.open(arguments.bundle, executor=threads) as kontext:
        tallies = measure(kontext, chosen, wanted, arguments.reference_steps)
        about = {
            "bundle": kontext.bundle.fingerprint[:12],
            "executor": kontext.executor.name,
            "requests": len(chosen),
            "reference_steps": arguments.reference_steps,
        }
    print_rows(about, rows(tallies), as_json=arguments.json)


if __name__ == "__main__":
    run_main(main)

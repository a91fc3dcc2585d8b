"""Holds what a comparison found: kept as JSON, in which infinite decibels are null, and told as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...engine.system.files import atomic_file
from .noise import BlockError, LayerError


@dataclass(frozen=True, slots=True, kw_only=True)
class StepError:
    """Holds the error after one step, each bundle on its own path from the same noise.

    `sqnr_db` and `cosine` are of the latents, and `relative` is the error's norm over the latents'.
    """

    step: int
    sqnr_db: float
    cosine: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RealRun:
    """Holds how near the runtime's picture and last latents are to the emulation's, of one request by one bundle."""

    psnr_db: float
    ssim: float
    latents_sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReport:
    """Holds one request, made by both; `real` is the second's by the runtime beside its emulation."""

    prompt: str
    seed: int
    image: str
    size: tuple[int, int]
    psnr_db: float
    ssim: float
    steps: tuple[StepError, ...]
    real: RealRun | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Holds what a comparison found.

    `reference` and `other` are the bundles' fingerprints. `prediction_sqnr_db` is that of a step's change of the
    latents, all layers quantized, on the reference's own path; `real_executor` is what ran the second for real, and
    `keep` are the layers to keep for `budget_db`, and
    `kept_sqnr_db` the prediction's SQNR with them.
    """

    reference: str
    other: str
    recipe: str
    executor: str
    cases: tuple[CaseReport, ...]
    blocks: tuple[BlockError, ...]
    layers: tuple[LayerError, ...]
    prediction_sqnr_db: float | None
    budget_db: float | None = None
    keep: tuple[str, ...] = ()
    kept_sqnr_db: float | None = None
    real_executor: str = ""

    def save(self, path: Path) -> None:
        with atomic_file(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


Rows = tuple[tuple[str, ...], Iterable[tuple[str, ...]]]
"""The columns' headings of a table, and its rows."""


def tables(comparison: Comparison, worst: int) -> Iterator[Rows]:
    """Yield tables of the pictures, the steps of the first case, the blocks, and the `worst` layers.

    Pictures that were made for real have one of their own.
    """
    yield (
        ("case", "size", "PSNR dB", "SSIM", "last latents, SQNR dB"),
        (
            (
                _name(case),
                f"{case.size[0]}x{case.size[1]}",
                f"{case.psnr_db:.1f}",
                f"{case.ssim:.4f}",
                f"{case.steps[-1].sqnr_db:.1f}",
            )
            for case in comparison.cases
        ),
    )
    if comparison.real_executor:
        yield (
            (f"{comparison.real_executor}, beside the emulation", "PSNR dB", "SSIM", "last latents, SQNR dB"),
            (
                (_name(case), f"{real.psnr_db:.1f}", f"{real.ssim:.4f}", f"{real.latents_sqnr_db:.1f}")
                for case in comparison.cases
                if (real := case.real) is not None
            ),
        )
    yield (
        ("step", "latents, SQNR dB", "cosine", "relative error"),
        (
            (str(step.step), f"{step.sqnr_db:.1f}", f"{step.cosine:.6f}", f"{step.relative:.2e}")
            for step in comparison.cases[0].steps
        ),
    )
    yield (
        ("block", "stream", "SQNR dB"),
        ((error.block, error.stream, f"{error.sqnr_db:.1f}") for error in comparison.blocks),
    )
    if comparison.layers:
        yield (
            ("worst layers", "share of the noise", "kept, the prediction gains"),
            (
                (error.layer, f"{100 * error.share:.1f} %", f"{error.gain_db:.2f} dB")
                for error in comparison.layers[:worst]
            ),
        )


def budget_advice(comparison: Comparison) -> str:
    """Return what to keep for the budget in words, with the options that say so; "" if nobody asked."""
    if comparison.budget_db is None or not comparison.layers:
        return ""
    budget, num_kept, num_layers = f"{comparison.budget_db:g} dB", len(comparison.keep), len(comparison.layers)
    now = comparison.prediction_sqnr_db
    quantized = "" if now is None else f"; with all of them quantized the prediction has {now:.1f} dB"
    if num_kept == 0:
        return f"for {budget} nothing has to be kept{quantized}"
    if 2 * num_kept > num_layers:
        return (
            f"for {budget} {num_kept} of {num_layers} layers would have to be kept{quantized}. Hardly anything would "
            "be quantized: ask for less with --budget, or take a recipe that errs less. The report lists the layers"
        )
    flags = " ".join(f"--keep '{name}'" for name in comparison.keep)
    reached = "" if comparison.kept_sqnr_db is None else f", which gives {comparison.kept_sqnr_db:.1f} dB"
    return f"for {budget} keep {num_kept} of {num_layers} layers{reached}: {flags}"


def _name(case: CaseReport) -> str:
    return f"{case.prompt} (seed {case.seed}{', ' + case.image if case.image else ''})"

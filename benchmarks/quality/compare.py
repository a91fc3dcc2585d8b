"""Compares a quantized bundle with the one it was made from, and finds what to keep for a budget of error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER
from ...engine.printable import counted
from ...engine.progress import Progress, Silent
from ...engine.system.files import atomic_folder, free_path
from ...runtime.inputs.pictures import read_picture
from ...runtime.kontext import Kontext
from ...runtime.outputs.result import Result
from ..environment import require_report
from .compare_options import CompareCase, check_comparison
from .compare_options import CompareOptions as CompareOptions
from .metrics import cosine, decibels, psnr_db, sqnr_db, ssim
from .noise import DenoiserPair, choose_exclusions
from .pictures import Pair, side_by_side
from .probe import Inputs, WitnessExecutor
from .real_runs import check_real, run_for_real
from .report import CaseReport, Comparison, RealRun, StepError

REPORTS = "reports"
"""The folder of a bundle with what it was compared with."""


def compare_bundles(
    reference: Bundle,
    other: Bundle,
    cases: Sequence[CompareCase],
    options: CompareOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Comparison, Path]:
    """Serve `cases` with both bundles and write a report, a plot and pictures into `other`, in a new folder it returns.

    Torch runs both: it emulates what is quantized, so FP4 can be compared without a GPU that has it. With `real` the
    runtime makes the pictures of `other`, too, before torch takes memory.

    Raises:
        MissingDependencyError: No plot can be drawn.
        QuantizationError: The bundles are of different models, or the first is quantized and the second is not, there
            is no case, or `other` cannot be run for real.
        ExecutorError: A bundle cannot be run.
    """
    require_report()
    from ..figures import png
    from .plot import draw

    options, progress = options or CompareOptions(), progress or Silent()
    check_comparison(reference, other, cases, options)
    steps = options.steps or reference.manifest.model.flow.steps
    real_executor, real = "", []
    if options.real is not None:
        check_real(other, options.real)
    place = other.own_folder(REPORTS)
    if options.real is not None:
        progress.start(f"{counted(len(cases), 'request')} for real", len(cases))
        real_executor, real = run_for_real(other, cases, steps, options.real, lambda: progress.advance(1))
    executors = [WitnessExecutor(bundle, options.device, steps) for bundle in (reference, other)]
    with Kontext(reference, executors[0]) as wanted, Kontext(other, executors[1]) as found:
        progress.start(f"serving {counted(len(cases), 'request')} twice", 2 * len(cases))
        results: list[tuple[Result, Result]] = []
        reports: list[CaseReport] = []
        probes: list[Inputs] = []
        for case in cases:
            pair = []
            for executor, kontext in zip(executors, (wanted, found), strict=True):
                pair.append(executor.serve(kontext, case))
                progress.advance(1)
            reports.append(_case_report(case, pair[0], pair[1], executors[0].latents, executors[1].latents))
            results.append((pair[0], pair[1]))
            probes.append(executors[0].middle)
        if real:
            emulated = (found for _, found in results)
            reports = [_with_real(*three) for three in zip(reports, emulated, real, strict=True)]
        made = _comparison(reference, other, executors, reports, probes, options, progress)
        made = replace(made, real_executor=real_executor)
    folder = free_path(place / f"against-{reference.fingerprint[:12]}")  # earlier ones may be of other requests
    with atomic_folder(folder) as temporary:
        made.save(temporary / "comparison.json")
        names = reference.path.resolve().name, other.path.resolve().name
        (temporary / "errors.png").write_bytes(png(draw(made, *names)))
        for index, (case, (one, two)) in enumerate(zip(cases, results, strict=True), 1):
            pair = _pair(case, two, (one, two), names, f"{names[1]} beside {names[0]}")
            side_by_side(pair).draw().save(temporary / f"pictures-{index}.png")
        for index, (case, (_, emulated), result) in enumerate(zip(cases, results, real, strict=False), 1):
            heads = f"{names[1]}, emulated by torch", f"{names[1]}, by {real_executor}"
            pair = _pair(case, result, (emulated, result), heads, f"{names[1]} run for real, beside its emulation")
            side_by_side(pair).draw().save(temporary / f"for-real-{index}.png")
    return made, folder


def _comparison(
    reference: Bundle,
    other: Bundle,
    executors: Sequence[WitnessExecutor],
    reports: Sequence[CaseReport],
    probes: Sequence[Inputs],
    options: CompareOptions,
    progress: Progress,
) -> Comparison:
    pair = DenoiserPair(executors[0], executors[1], probes)
    quantization = other.graph(DENOISER).quantization
    layers = []
    if pair.layers and (options.layers or options.budget_db is not None):
        progress.start("each quantized layer alone", len(pair.layers))
        layers = pair.layer_errors(lambda: progress.advance(1))
    keep, kept_db = (
        choose_exclusions(pair, layers, options.budget_db) if options.budget_db is not None and layers else ([], None)
    )
    return Comparison(
        reference=reference.fingerprint,
        other=other.fingerprint,
        recipe=quantization.recipe if quantization else "",
        executor=executors[0].name,
        cases=tuple(reports),
        blocks=tuple(pair.block_errors()),
        layers=tuple(layers),
        prediction_sqnr_db=decibels(1.0, pair.noise(pair.layers)),
        budget_db=options.budget_db,
        keep=tuple(keep),
        kept_sqnr_db=kept_db,
    )


def _pair(case: CompareCase, made: Result, results: tuple[Result, Result], heads: tuple[str, str], title: str) -> Pair:
    """Return what is drawn of a case: its prompt, how it was asked for, and two bundles' pictures."""
    return Pair(
        title=title,
        asked=(f"prompt: {case.prompt}", f"seed {case.seed}, {made.steps} steps, {made.size[0]}x{made.size[1]}"),
        heads=heads,
        pictures=(results[0].image, results[1].image),
        edited=None if case.image is None else read_picture(case.image),
    )


def _case_report(
    case: CompareCase,
    wanted: Result,
    found: Result,
    wanted_latents: Sequence[NDArray[np.float32]],
    found_latents: Sequence[NDArray[np.float32]],
) -> CaseReport:
    pictures = [np.asarray(result.image) for result in (wanted, found)]
    return CaseReport(
        prompt=case.prompt,
        seed=case.seed,
        image=case.image.name if isinstance(case.image, Path) else "given" if case.image is not None else "",
        size=wanted.size,
        psnr_db=psnr_db(*pictures),
        ssim=ssim(*pictures),
        steps=tuple(
            StepError(
                step=number,
                sqnr_db=(sqnr := sqnr_db(one, two)),
                cosine=cosine(one, two),
                relative=0.0 if math.isinf(sqnr) else 10 ** (-sqnr / 20),
            )
            for number, (one, two) in enumerate(zip(wanted_latents, found_latents, strict=True), 1)
        ),
    )


def _with_real(report: CaseReport, emulated: Result, real: Result) -> CaseReport:
    pictures = [np.asarray(result.image) for result in (emulated, real)]
    latents = (result.outputs[0].latents for result in (emulated, real))
    return replace(
        report, real=RealRun(psnr_db=psnr_db(*pictures), ssim=ssim(*pictures), latents_sqnr_db=sqnr_db(*latents))
    )

"""Calibrates a bundle: runs the runtime's own requests by torch, with observers in the denoiser."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...engine.bundle.bundle import Bundle
from ...engine.errors import QuantizationError
from ...engine.printable import counted
from ...engine.progress import Progress, Silent
from ...runtime.inputs.request import Request, Sampling
from ...runtime.kontext import Kontext
from ..emulate.torch_executor import TorchExecutor
from ..graphs.recipes import CALIBRATED, make_recipe
from .calibration import Calibration, CalibrationOptions, Done, Observation
from .checks import check_unquantized
from .observer import Magnitudes, observe
from .samples import Sample, read_samples

logger = logging.getLogger(__name__)

OBSERVED = "fp8-attention"
"""The recipe whose activations are observed: all that any recipe may want, so one calibration serves them all."""


def model_sha256(bundle: Bundle) -> str:
    """Return which denoiser's weights a bundle has: a hash over their samples."""
    used = set(bundle.graph(CALIBRATED).weights)
    parts = sorted(record.sample_sha256 for record in bundle.manifest.weights if record.path in used)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def calibrate_bundle(
    bundle: Bundle | Path | str,
    folder: Path | str,
    artefact: Path | str,
    options: CalibrationOptions | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Run every sample of `folder` and keep what was seen in `artefact`, which is saved after each of them.

    If the file is there from an earlier, interrupted run of the same model and number of steps, its samples are not run
    again.

    Raises:
        QuantizationError: There is nothing to run, or the file belongs to another model.
        NotFiniteError: An activation is NaN or infinite; the message names the layer.
    """
    options, progress = options or CalibrationOptions(), progress or Silent()
    bundle, folder, artefact = Bundle.of(bundle), Path(folder), Path(artefact)
    check_unquantized(bundle)
    samples, skipped = read_samples(folder)
    if options.limit is not None:
        samples = samples[: options.limit]
    calibration = _start(bundle, artefact, options)
    calibration = replace(calibration, skipped=tuple(skipped))
    executor = TorchExecutor(bundle, options.device)
    known = {done.key for done in calibration.samples}
    jobs = [(sample, seed, sample.key(seed, calibration.steps)) for seed, sample in enumerate(samples, options.seed)]
    jobs = [job for job in jobs if job[2] not in known]
    if len(jobs) < len(samples):
        logger.warning("%d of %d samples were run before; continuing", len(samples) - len(jobs), len(samples))
    progress.start(f"calibrating on {counted(len(jobs), 'sample')}", len(jobs) * calibration.steps)

    def run(observers: Mapping[str, Magnitudes]) -> None:
        nonlocal calibration
        with Kontext(bundle, executor) as kontext:
            for sample, seed, key in jobs:
                sampling = Sampling(seed=seed, steps=calibration.steps)
                request = Request(prompt=sample.instruction, image=sample.picture, sampling=sampling)
                kontext.run(request, on_step=lambda done, of: progress.advance(1))
                seen = {name: observation for name, one in observers.items() if (observation := one.take()) is not None}
                calibration = _add(calibration, sample, key, seen)
                calibration.save(artefact)

    if jobs:
        observe(executor.module(CALIBRATED.name), make_recipe(OBSERVED), run)
    calibration = replace(calibration, complete=True)
    calibration.save(artefact)
    return calibration


def _start(bundle: Bundle, artefact: Path, options: CalibrationOptions) -> Calibration:
    steps = options.steps or bundle.manifest.model.flow.steps
    fresh = Calibration(model_sha256=model_sha256(bundle), steps=steps)
    if not artefact.exists():
        return fresh
    found = Calibration.open(artefact)
    if found.model_sha256 != fresh.model_sha256 or found.steps != steps:
        what = "another model" if found.model_sha256 != fresh.model_sha256 else f"{found.steps} steps, not {steps}"
        raise QuantizationError(f"{artefact} was calibrated with {what}; remove it, or name another file")
    return found


def _add(calibration: Calibration, sample: Sample, key: str, seen: Mapping[str, Observation]) -> Calibration:
    picture = sample.picture.name if sample.picture else ""
    return calibration.with_sample(Done(key=key, picture=picture, instruction=sample.instruction), seen)


def check_calibration(calibration: Calibration, bundle: Bundle) -> None:
    """Warn if a calibration is unfinished, or of other weights than a bundle's."""
    if not calibration.complete:
        logger.warning("the calibration was interrupted after %d samples", len(calibration.samples))
    if calibration.model_sha256 != model_sha256(bundle):
        logger.warning("the calibration was made with other weights than this bundle's; ranges may not fit")

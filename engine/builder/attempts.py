"""Compiles with second chances: after a failure that other options may cure, those are tried, and said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..bundle.folder import Folder
from ..plans.options import BuildOptions
from ..progress import Progress
from .compile import Compiled, CompileJob
from .compile_process import ProcessResult, run_compilation
from .failures import Failure, ladder

logger = logging.getLogger(__name__)

Compile = Callable[..., ProcessResult]
"""The type of `run_compilation`, or of what stands in for it in a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Holds the last attempt. `compiled` is None, and `failure` says why, if no attempt succeeded."""

    compiled: Compiled | None
    failure: Failure | None
    options: BuildOptions
    seconds: float
    peak_bytes: int
    log: Path


def compile_with_retries(
    job: CompileJob,
    progress: Progress,
    *,
    timeout_s: float | None = None,
    gpu_bytes: int | None = None,
    compile_plan: Compile = run_compilation,
) -> Attempt:
    """Compile, and walk the ladder of `failures.ladder` while the failure stays of its kind.

    Each rung is logged as a warning and has a log file of its own.
    """
    first_log, rungs, first_kind, number = job.log, None, None, 0
    while True:
        attempt = _compile_once(job, progress, timeout_s, compile_plan)
        if attempt.failure is None:
            return attempt
        rungs = rungs or ladder(attempt.failure, job.options, gpu_bytes)
        first_kind = first_kind or attempt.failure.kind
        rung = next(rungs, None) if attempt.failure.kind is first_kind else None
        if rung is None:
            return attempt
        number += 1
        logger.warning("%s: %s; trying again with %s", job.component, attempt.failure.words, rung.words)
        job = replace(job, options=rung.options, log=first_log.with_suffix(f".retry{number}.log"))


def _compile_once(job: CompileJob, progress: Progress, timeout_s: float | None, compile_plan: Compile) -> Attempt:
    done = 0.0

    def on_fraction(fraction: float) -> None:
        nonlocal done
        if fraction > done:
            progress.advance(fraction - done)
            done = fraction

    progress.start(f"{job.component} for {job.target.capability}", 1.0)
    with Folder.open(job.log.parent) as logs:
        logs.fresh(job.log.name)
    start = time.perf_counter()
    result = compile_plan(job, on_fraction, timeout_s=timeout_s)
    return Attempt(
        compiled=result.compiled,
        failure=result.failure,
        options=job.options,
        seconds=time.perf_counter() - start,
        peak_bytes=result.peak_bytes,
        log=job.log,
    )

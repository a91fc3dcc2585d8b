"""The ladder of retries, as it is walked."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kontext_trt.engine.builder.attempts import compile_with_retries
from kontext_trt.engine.builder.compile import Compiled, CompileJob
from kontext_trt.engine.builder.compile_process import ProcessResult
from kontext_trt.engine.builder.failures import Failure, FailureKind
from kontext_trt.engine.plans.options import BuildOptions
from kontext_trt.engine.plans.targets import Target
from kontext_trt.engine.progress import Silent

DONE = Compiled(size_bytes=1, chunked_sha256="", seconds=0.0)


class Compiler:
    """Fails so many times, then succeeds; remembers what it was asked."""

    def __init__(self, failures: int, kind: FailureKind) -> None:
        self.left, self.kind, self.jobs = failures, kind, list[CompileJob]()

    def __call__(self, job: CompileJob, on_fraction: object, *, timeout_s: float | None) -> ProcessResult:
        self.jobs.append(job)
        if self.left == 0:
            return ProcessResult(compiled=DONE, failure=None, peak_bytes=5)
        self.left -= 1
        failure = Failure(kind=self.kind, words="the GPU's memory did not suffice")
        return ProcessResult(compiled=None, failure=failure, peak_bytes=9)


@pytest.fixture
def job(tmp_path: Path) -> CompileJob:
    return CompileJob(
        component="denoiser",
        graph=tmp_path / "graph",
        plan=tmp_path / "plan",
        log=tmp_path / "denoiser.0123.log",
        target=Target(flavour="tensorrt", version="11.4", capability="sm_90", gpu="NVIDIA H200"),
        profile={},
        options=BuildOptions(),
    )


def test_success_at_once_changes_nothing(job: CompileJob) -> None:
    compiler = Compiler(0, FailureKind.GPU_MEMORY)
    attempt = compile_with_retries(job, Silent(), compile_plan=compiler)
    assert attempt.compiled is DONE
    assert attempt.options == BuildOptions()
    assert len(compiler.jobs) == 1


def test_each_rung_is_said_logged_apart_and_reported(job: CompileJob, caplog: pytest.LogCaptureFixture) -> None:
    compiler = Compiler(2, FailureKind.GPU_MEMORY)
    with caplog.at_level(logging.WARNING):
        attempt = compile_with_retries(job, Silent(), gpu_bytes=16 << 30, compile_plan=compiler)
    assert attempt.compiled is DONE
    assert attempt.options == BuildOptions(workspace_bytes=1 << 30)
    assert [record.message for record in caplog.records] == [
        "denoiser: the GPU's memory did not suffice; trying again with workspace of at most 4096 MiB",
        "denoiser: the GPU's memory did not suffice; trying again with workspace of at most 1024 MiB",
    ]
    names = [job.log.name for job in compiler.jobs]
    assert names == ["denoiser.0123.log", "denoiser.0123.retry1.log", "denoiser.0123.retry2.log"]


def test_at_the_ladders_end_the_last_failure_stays(job: CompileJob) -> None:
    compiler = Compiler(100, FailureKind.GPU_MEMORY)
    attempt = compile_with_retries(job, Silent(), gpu_bytes=16 << 30, compile_plan=compiler)
    assert attempt.compiled is None
    assert attempt.failure is not None
    assert len(compiler.jobs) == 6


def test_what_retrying_cannot_cure_is_not_retried(job: CompileJob) -> None:
    compiler = Compiler(100, FailureKind.OPERATOR)
    assert compile_with_retries(job, Silent(), compile_plan=compiler).failure is not None
    assert len(compiler.jobs) == 1


def test_a_failure_of_another_kind_ends_the_ladder(job: CompileJob) -> None:
    class Changing(Compiler):
        def __call__(self, job: CompileJob, on_fraction: object, *, timeout_s: float | None) -> ProcessResult:
            result = super().__call__(job, on_fraction, timeout_s=timeout_s)
            self.kind = FailureKind.TIMEOUT
            return result

    compiler = Changing(9, FailureKind.GPU_MEMORY)
    attempt = compile_with_retries(job, Silent(), gpu_bytes=16 << 30, compile_plan=compiler)
    assert attempt.failure is not None
    assert attempt.failure.kind is FailureKind.TIMEOUT
    assert len(compiler.jobs) == 2

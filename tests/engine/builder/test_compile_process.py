"""How a compilation ends, told apart: done, refused, killed, out of memory, crashed, too slow."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from compiler_fixtures import COVERAGE

from kontext_trt.engine.builder.compile import CompileJob
from kontext_trt.engine.builder.compile_process import ProcessResult, run_compilation
from kontext_trt.engine.builder.failures import FailureKind
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.engine.plans.ingredients import plan_ingredients
from kontext_trt.engine.plans.options import BuildOptions
from kontext_trt.engine.plans.profiles import ShapeRange
from kontext_trt.engine.plans.targets import Target


@pytest.fixture
def job(wide_bundles: Callable[[Precision], Bundle], ada: Target, tmp_path: Path) -> CompileJob:
    bundle = wide_bundles(Precision.BF16)
    return CompileJob(
        component="t5",
        graph=bundle.open_graph("t5").path,
        plan=tmp_path / "plan",
        log=tmp_path / "log",
        target=ada,
        profile=plan_ingredients(bundle, "t5", ada, COVERAGE).profile,
        options=BuildOptions(),
    )


def _script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import os, signal, sys, time; {text}")


def _silent(fraction: float) -> None:
    pass


def test_progress_rises_to_the_end_and_memory_is_seen(job: CompileJob) -> None:
    seen: list[float] = []
    result = run_compilation(job, seen.append)
    assert result.failure is None
    assert result.compiled is not None
    assert result.compiled.size_bytes == job.plan.stat().st_size
    assert all(0 <= fraction <= 1 for fraction in seen)
    assert seen == sorted(seen)
    assert seen
    assert result.peak_bytes > 16 << 20
    assert "LayerType: " in job.log.read_text()


def test_the_compilers_refusal_arrives_in_words(job: CompileJob, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 100)
    result = run_compilation(replace(job, graph=broken), _silent)
    assert result.failure is not None
    assert "broken.onnx is not an ONNX graph" in result.failure.words


def test_the_compilers_own_error_is_explained(job: CompileJob, tmp_path: Path) -> None:
    """TensorRT moves uint8 pictures only into a cast."""
    node = onnx.helper.make_node("Transpose", ["image"], ["turned"])
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [4, 4]) for name in ("image", "turned")]
    graph = onnx.helper.make_graph([node], "turn", ports[:1], ports[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), tmp_path / "turn.onnx")
    result = run_compilation(replace(job, graph=tmp_path / "turn.onnx"), _silent)
    assert result.failure is not None
    assert result.failure.kind is FailureKind.NUMBER_TYPE
    assert "has type UInt8 but must have type" in result.failure.words
    assert "cudaError 35" not in result.failure.words


def test_a_range_that_the_graph_cannot_have_is_refused(job: CompileJob) -> None:
    backwards = ShapeRange(min=(2, 512), opt=(2, 512), max=(1, 512))
    result = run_compilation(replace(job, profile={"input_ids": backwards}), _silent)
    assert result.failure is not None
    assert result.failure.kind is FailureKind.SHAPES
    assert "input_ids [2, 512] to [1, 512]" in result.failure.words


def test_a_full_disk_is_named(job: CompileJob) -> None:
    result = run_compilation(replace(job, plan=Path("/dev/full")), _silent)
    assert result.failure is not None
    assert result.failure.kind is FailureKind.DISK


def test_a_signal_is_named(job: CompileJob) -> None:
    result = run_compilation(job, _silent, command=_script("os.kill(os.getpid(), signal.SIGSEGV)"))
    assert result.failure is not None
    assert result.failure.kind is FailureKind.SIGNAL
    assert "SIGSEGV" in result.failure.words


@pytest.fixture
def counted_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Iterator[int] = iter((7, 8))
    monkeypatch.setattr("kontext_trt.engine.builder.compile_process.oom_kills", lambda: next(counts))


@pytest.mark.usefixtures("counted_kills")
def test_a_kill_for_want_of_memory_is_told_from_any_other(job: CompileJob) -> None:
    result = run_compilation(job, _silent, command=_script("os.kill(os.getpid(), signal.SIGKILL)"))
    assert result.failure is not None
    assert result.failure.kind is FailureKind.HOST_MEMORY
    assert "memory ran out" in result.failure.words


def test_a_kill_by_somebody_else_is_a_signal(job: CompileJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kontext_trt.engine.builder.compile_process.oom_kills", lambda: 7)
    result = run_compilation(job, _silent, command=_script("os.kill(os.getpid(), signal.SIGKILL)"))
    assert result.failure is not None
    assert result.failure.kind is FailureKind.SIGNAL
    assert "SIGKILL" in result.failure.words


def test_a_crash_shows_its_last_line(job: CompileJob) -> None:
    result = run_compilation(job, _silent, command=_script("sys.exit('the last words')"))
    assert result.failure is not None
    assert result.failure.kind is FailureKind.CRASH
    assert result.failure.words == "the compiler's process left with code 1: the last words"


def test_leaving_without_an_answer_is_a_crash(job: CompileJob) -> None:
    result = run_compilation(job, _silent, command=_script("pass"))
    assert result.compiled is None
    assert result.failure is not None
    assert result.failure.kind is FailureKind.CRASH


def test_what_takes_too_long_is_ended(job: CompileJob) -> None:
    start = time.monotonic()
    result: ProcessResult = run_compilation(job, _silent, timeout_s=0.3, command=_script("time.sleep(600)"))
    assert time.monotonic() - start < 300
    assert result.failure is not None
    assert result.failure.kind is FailureKind.TIMEOUT
    assert "--timeout" in result.failure.words


def test_an_interrupt_ends_the_child(job: CompileJob, tmp_path: Path) -> None:
    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    pid = tmp_path / "pid"
    tell = f"open({str(pid)!r}, 'w').write(str(os.getpid())); os.write(int(sys.argv[1]), b'{{\"fraction\": 0.5}}\\n')"
    with pytest.raises(KeyboardInterrupt):
        run_compilation(job, interrupt, command=_script(f"{tell}; time.sleep(60)"))
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_modules_in_the_working_directory_are_not_imported(
    job: CompileJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    result = run_compilation(job, _silent)
    assert result.failure is None
    assert "hijacked" not in job.log.read_text()


@pytest.mark.parametrize(("shown", "index", "expected"), [("", 1, "1"), ("3,5", 1, "5"), ("GPU-ab", 0, "GPU-ab")])
def test_the_child_sees_one_device(
    job: CompileJob, monkeypatch: pytest.MonkeyPatch, shown: str, index: int, expected: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    command = _script("print('sees', os.environ['CUDA_VISIBLE_DEVICES'])")
    run_compilation(replace(job, device=index), _silent, command=command)
    assert f"sees {expected}\n" in job.log.read_text()


def test_many_open_files_do_not_stop_a_build(job: CompileJob):
    """select(2) takes no descriptor above 1023, and a server with many clients has those."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    null = os.open(os.devnull, os.O_RDONLY)
    held = [null]
    try:
        while held[-1] < 1024:
            held.append(os.dup(null))
        result = run_compilation(job, _silent, command=_script("sys.exit(3)"))
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert result.failure is not None
    assert "left with code 3" in result.failure.words

"""The compilation itself, in this process: with TensorRT's flavour module over TensorRT-RTX's library.

TensorRT needs a GPU; what our side of it does, down to a finished plan, does not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from compiler_fixtures import COVERAGE

from kontext_trt.engine.builder.compile import CompileJob, _configure, compile_plan
from kontext_trt.engine.builder.failures import FailureKind, explain
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import BuildError
from kontext_trt.engine.flavour import Flavour
from kontext_trt.engine.flavour.start import CANNOT_START
from kontext_trt.engine.flavour.tensorrt_rtx import TensorRtRtx
from kontext_trt.engine.plans.ingredients import plan_ingredients
from kontext_trt.engine.plans.layers import layers_from_log
from kontext_trt.engine.plans.options import BuildOptions
from kontext_trt.engine.plans.targets import Target
from kontext_trt.engine.system.chunked_hash import hash_buffer

AHEAD = Target(flavour="tensorrt_rtx", version="1.7.1.116", capability="sm_89")
TIMED = Target(flavour="tensorrt", version="11.4.0.106", capability="sm_90", gpu="NVIDIA H200")


@pytest.fixture
def job(wide_bundles: Callable[[Precision], Bundle], tmp_path: Path) -> CompileJob:
    bundle = wide_bundles(Precision.BF16)
    return CompileJob(
        component="conditioner",
        graph=bundle.open_graph("conditioner").path,
        plan=tmp_path / "plan",
        log=tmp_path / "log",
        target=TIMED,
        profile=plan_ingredients(bundle, "conditioner", TIMED, COVERAGE).profile,
        options=BuildOptions(),
    )


@pytest.fixture
def _tensorrt(rtx: Flavour, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`import tensorrt` gives TensorRT-RTX."""
    monkeypatch.setitem(sys.modules, "tensorrt", rtx.trt)
    sys.modules.pop("kontext_trt.engine.flavour.tensorrt", None)
    yield
    sys.modules.pop("kontext_trt.engine.flavour.tensorrt", None)


@pytest.mark.usefixtures("_tensorrt")
@pytest.mark.parametrize("recent", [True, False])
def test_tensorrts_road_leads_to_a_plan(job: CompileJob, monkeypatch: pytest.MonkeyPatch, recent: bool) -> None:
    """Also as before 10.13: the parser reads weights from files, and the plan comes in one piece."""
    from kontext_trt.engine.flavour.tensorrt import TensorRt

    monkeypatch.setattr(TensorRt, "weights_by_pointer", recent)
    monkeypatch.setattr(TensorRt, "streams_plans", recent)
    seen: list[float] = []
    compiled = compile_plan(job, seen.append)
    data = job.plan.read_bytes()
    assert compiled.size_bytes == len(data)
    assert compiled.chunked_sha256 == hash_buffer(memoryview(data))
    assert compiled.layers == ""
    assert layers_from_log(job.log.read_text().splitlines())
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.usefixtures("_tensorrt")
def test_an_engine_is_inspected_where_the_log_lists_no_layers(job: CompileJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kontext_trt.engine.builder.compile._inspect", lambda trt, job: (f"{job.plan.name} inspected", 0)
    )
    monkeypatch.setattr("kontext_trt.engine.builder.callbacks.LISTING", "no compiler writes this")
    assert compile_plan(job, lambda fraction: None).layers == "plan inspected"


def test_a_capability_that_the_library_will_not_take_is_an_error(rtx: Flavour) -> None:
    class Config:
        num_compute_capabilities = 0

        def set_compute_capability(self, member: object, index: int) -> bool:
            return False

    assert isinstance(rtx, TensorRtRtx)
    with pytest.raises(BuildError, match="did not accept sm_89, which it lists"):
        rtx.set_capability(Config(), "sm_89")


def test_plans_of_tensorrt_rtx_can_be_recorded_unless_they_stream_weights(rtx: Flavour, job: CompileJob) -> None:
    """Its notes require the flag for stream capture, and refuse it beside weight streaming."""
    flag = rtx.trt.BuilderFlag.REQUIRE_USER_ALLOCATION
    logger = rtx.trt.Logger(rtx.trt.Logger.INTERNAL_ERROR)
    for streams in (False, True):
        config = _configure(rtx, rtx.trt.Builder(logger), replace(job, target=AHEAD, options=_options(streams)), None)
        assert config.get_flag(flag) is not streams
        assert _options(streams).recordable is not streams


def _options(streams: bool) -> BuildOptions:
    return BuildOptions(weight_streaming=streams)


def test_a_start_that_fails_is_explained(rtx: Flavour, job: CompileJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bindings raise a bare TypeError, and the library says why in its log, if at all."""

    def fails(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(rtx.trt, "Builder", fails)
    with pytest.raises(BuildError, match=r"tensorrt_rtx could not open the GPU \(.*returned nullptr\): the driver is"):
        compile_plan(replace(job, target=AHEAD), lambda fraction: None)
    message = f"tensorrt_rtx {CANNOT_START} (CUDA initialization failure with error: 2, out of memory): the driver"
    assert explain(message).kind is FailureKind.GPU_MEMORY
    assert explain(f"tensorrt_rtx {CANNOT_START} (returned nullptr)").kind is FailureKind.DRIVER

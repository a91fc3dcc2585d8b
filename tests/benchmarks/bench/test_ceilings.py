"""The GPU's ceilings: what is measured, and what is said where there is none."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch

from kontext_trt import MissingDependencyError
from kontext_trt.benchmarks.bench import ceilings
from kontext_trt.benchmarks.bench.ceilings import measure_ceilings
from kontext_trt.benchmarks.bench.records import Unmeasured


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_a_failure():
    assert measure_ceilings() == Unmeasured(engine="ceilings", reason="no CUDA device")


def test_the_module_needs_no_torch():
    code = "import sys, kontext_trt.benchmarks.bench.ceilings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_best_of_each_format_has_its_name():
    rates = {"bf16 8x8x8": 3.0, "bf16 4x4x4": 5.0, "fp8 8x8x8": 9.0}
    assert ceilings._with_best(rates) == {"bf16": 5.0, "fp8": 9.0, **rates}


class Event:
    """A CUDA event of a GPU that is the CPU."""

    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self, **_: object) -> None:
        pass

    def record(self) -> None:
        self.at = self.clock()

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at - self.at)


@pytest.fixture
def slow_gpu(monkeypatch) -> types.SimpleNamespace:
    """torch, whose GPU is the CPU."""
    monkeypatch.setattr(ceilings, "DEVICE", "cpu")
    monkeypatch.setattr(ceilings, "WARM_UP_MS", 1.0)
    monkeypatch.setattr(ceilings, "PRODUCTS", ((32, 64, 48),))
    monkeypatch.setattr(ceilings, "ATTENTION", (1, 2, 64, 32))
    cuda = types.SimpleNamespace(
        Event=Event,
        synchronize=lambda: None,
        is_available=lambda: True,
        get_device_capability=lambda: (9, 0),
        get_device_name=lambda: "slow",
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(ceilings, "COPIED_BYTES", 1 << 20)
    return cuda


def test_rates_are_measured_by_format(slow_gpu):
    found = ceilings.measure()
    assert not isinstance(found, Unmeasured)
    assert 1e6 < found.copy < 1e13
    for name in ("bf16", "fp16", "fp32"):
        assert found.products[name] == found.products[f"{name} 32x64x48"] > 0
    assert found.attention["bf16"] == found.attention["bf16 flash"] > 0
    assert "bf16 cudnn: " in found.how  # the CPU has none: said, not hidden


def test_fp8_is_measured_where_the_gpu_has_it(slow_gpu, monkeypatch: pytest.MonkeyPatch):
    """Attention by the runtime's own call, and what keeps it away is said."""
    called = []

    @contextmanager
    def attention(torch, shape, device):
        yield lambda: called.append(shape)

    monkeypatch.setattr(ceilings, "fp8_attention", attention)
    found = ceilings.measure()
    assert not isinstance(found, Unmeasured)
    assert found.attention["fp8"] == found.attention["fp8 cudnn"] > 0
    assert set(called) == {ceilings.ATTENTION}

    def lacking(torch, shape, device):
        raise MissingDependencyError("fused operators need nvidia-cudnn-frontend")

    monkeypatch.setattr(ceilings, "fp8_attention", lacking)
    found = ceilings.measure()
    assert not isinstance(found, Unmeasured)
    assert "fp8" not in found.attention
    assert "fp8 cudnn: MissingDependencyError: fused operators need nvidia-cudnn-frontend" in found.how


def test_what_the_gpu_lacks_is_said(slow_gpu):
    slow_gpu.get_device_capability = lambda: (8, 6)
    found = ceilings.measure()
    assert not isinstance(found, Unmeasured)
    assert "fp8" not in found.products.keys() | found.attention.keys()
    assert "no fp8 products below compute capability 8.9: this GPU has 8.6" in found.how
    assert "no fp8 attention below compute capability 9.0: this GPU has 8.6" in found.how


def test_seconds_are_of_one_call(slow_gpu, monkeypatch):
    """The median of them: every seventh takes a hundred times as long."""
    times = itertools.cycle([0.002] * 6 + [0.2])
    clock = [0.0]

    def call() -> None:
        clock[0] += next(times)

    monkeypatch.setattr(Event, "clock", lambda self: clock[0])
    assert ceilings.seconds(torch, call) == pytest.approx(0.002)

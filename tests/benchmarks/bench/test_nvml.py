"""What NVML answers while a benchmark runs, and what a run warns of."""

from __future__ import annotations

import logging
import warnings

import pytest

from kontext_trt.benchmarks.bench import engine_process, nvml


class FakeNvml:
    """Answers of a GPU whose clock falls, memory grows, and temperature is not told."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    nvmlClocksEventReasonSwPowerCap = 4  # noqa: N815

    def __init__(self) -> None:
        self.asked = 0

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> str:  # noqa: N802
        return bus.decode()

    def nvmlDeviceGetMemoryInfo(self, handle: str):  # noqa: N802
        self.asked += 1
        return type("Info", (), {"used": min(self.asked, 3) << 30})

    def nvmlDeviceGetClockInfo(self, handle: str, which: int) -> int:  # noqa: N802
        return 1980 if which == self.NVML_CLOCK_SM else 3201

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 650_000

    def nvmlDeviceGetTemperature(self, handle: str, which: int) -> int:  # noqa: N802
        raise self.NVMLError

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        return 4 if self.asked % 2 else 1


class SilentNvml(FakeNvml):
    """Of a GPU that does not tell its memory."""

    def nvmlDeviceGetMemoryInfo(self, handle: str):  # noqa: N802
        self.asked += 1
        raise self.NVMLError


def sampled(fake: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> nvml.GpuSampler:
    """A sampler that has asked `fake` for memory twenty times."""
    monkeypatch.setattr(nvml, "load_nvml", lambda: fake)
    monkeypatch.setattr(nvml, "pci_bus_id", lambda index: "0000:1b:00.0")
    with nvml.GpuSampler(interval_s=0.001) as gpu:
        while fake.asked < 20:
            pass
    return gpu


def test_a_gpu_that_does_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch):
    """Clocks and power are told all the same."""
    gpu = sampled(SilentNvml(), monkeypatch)
    gpu.forget_peak()
    assert (gpu.first_bytes, gpu.used_bytes) == (None, None)
    clocks = gpu.clocks()
    assert clocks is not None
    assert clocks.sm_mhz == 1980


def test_gpu_is_sampled_meanwhile(monkeypatch: pytest.MonkeyPatch):
    gpu = sampled(FakeNvml(), monkeypatch)
    clocks = gpu.clocks()
    assert clocks is not None
    assert (clocks.sm_mhz, clocks.memory_mhz, clocks.power_w, clocks.most_celsius) == (1980, 3201, 650, None)
    assert clocks.throttled == pytest.approx(0.5, abs=0.1)
    assert (gpu.first_bytes, gpu.used_bytes) == (1 << 30, 3 << 30)
    gpu.forget()
    assert gpu.clocks() is None


def test_without_nvml_nothing_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvml, "load_nvml", lambda: None)
    with nvml.GpuSampler() as gpu:
        pass
    assert (gpu.clocks(), gpu.used_bytes) == (None, None)


def test_warnings_are_heard_once_each_and_cut():
    with engine_process.heard_warnings() as heard:
        warnings.warn("the prompt\nis longer", stacklevel=1)
        logging.getLogger("kontext_trt.runtime").warning("a budget of %s", "8 GiB" + 200 * "!")
    assert set(heard[1:]) == {"the prompt is longer"}
    assert heard[0].startswith("a budget of 8 GiB!!")
    assert len(heard[0]) == engine_process.LONGEST_NOTE
    logging.getLogger("kontext_trt.runtime").warning("later")
    assert len(heard) == 2

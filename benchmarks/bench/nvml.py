"""Samples clocks, power and memory of a GPU while something runs, as the driver's management library tells them."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.system.gpus import pci_bus_id
from .records import Clocks

INTERVAL_S = 0.02
_HELD_DOWN = ("SwPowerCap", "SwThermalSlowdown", "HwSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")


def load_nvml() -> Any | None:
    """Return nvidia-ml-py, initialised; None where it or the driver is missing."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def driver_version() -> str | None:
    """Return the driver's version; None without NVML."""
    nvml = load_nvml()
    return None if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


class GpuSampler:
    """Samples a GPU in a thread of its own, from entering to leaving.

    Without NVML it finds nothing, and without its answer about memory no memory. `used_bytes` is the most of the
    device's memory that everybody had at a time, and `first_bytes` what they had at the start.
    """

    def __init__(self, device: int = 0, *, interval_s: float = INTERVAL_S) -> None:
        self._nvml = load_nvml()
        self._device, self._interval = device, interval_s
        self._done, self._peak = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._samples: list[tuple[float, ...]] = []
        self._handle: Any = None
        self.first_bytes: int | None = None
        self.used_bytes: int | None = None

    def __enter__(self) -> GpuSampler:
        bus = None if self._nvml is None else pci_bus_id(self._device)
        if self._nvml is not None and bus is not None:
            with suppress(self._nvml.NVMLError):
                self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(bus.encode())
        if self._handle is not None:
            self.first_bytes = self.used_bytes = self._memory()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._handle is not None:
            self._thread.join()

    def _memory(self) -> int | None:
        assert self._nvml is not None
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._nvml.NVMLError:  # slices of a GPU, for one, do not tell
            return None

    def _run(self) -> None:
        while not self._done.wait(self._interval):
            with self._peak:
                used = self._memory()
                if used is not None:
                    self.used_bytes = max(self.used_bytes or 0, used)
            self._samples.append(self._sample())

    def _sample(self) -> tuple[float, ...]:
        nvml, handle = self._nvml, self._handle
        assert nvml is not None
        held = sum(getattr(nvml, f"nvmlClocksEventReason{name}", 0) for name in _HELD_DOWN)

        def ask(question: str, *arguments: object) -> float:
            try:
                return float(getattr(nvml, question)(handle, *arguments))
            except (nvml.NVMLError, AttributeError):  # not every GPU, nor every version, answers everything
                return float("nan")

        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
        return (
            ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            ask("nvmlDeviceGetPowerUsage") / 1000,
            ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            reasons if np.isnan(reasons) else float(bool(int(reasons) & held)),
        )

    def forget_peak(self) -> None:
        """Count the most used memory from here on."""
        if self._handle is not None:
            with self._peak:
                self.used_bytes = self._memory()

    def forget(self) -> None:
        """Drop the samples of clocks and power so far; what memory was used stays."""
        self._samples.clear()

    def clocks(self) -> Clocks | None:
        """Return the summary of the samples since `forget`; None if there are none."""
        if not self._samples:
            return None
        sm, memory, power, celsius, held = np.array(self._samples, np.float64).T
        return Clocks(
            samples=len(sm),
            sm_mhz=_known(np.median, sm),
            memory_mhz=_known(np.median, memory),
            power_w=_known(np.median, power),
            most_power_w=_known(np.max, power),
            most_celsius=_known(np.max, celsius),
            throttled=_known(np.mean, held),
        )


def _known(reduce: Callable[[NDArray[np.float64]], Any], values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(reduce(known)) if len(known) else None

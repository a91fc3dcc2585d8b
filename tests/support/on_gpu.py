"""What tests on a GPU share: the device with its calls counted, the executors there are, how near two pictures are."""

from __future__ import annotations

import importlib.util
from collections import Counter

import numpy as np

from kontext_trt.runtime.device import cuda as cuda_module


class CountingCuda(cuda_module.CudaPython):
    """The real device, with every call counted."""

    opened: list[CountingCuda] = []  # noqa: RUF012

    def __init__(self, device: int = 0) -> None:
        self.calls: Counter[str] = Counter()
        super().__init__(device)
        CountingCuda.opened.append(self)

    def _call(self, name: str, *arguments):
        self.calls[name] += 1
        return super()._call(name, *arguments)


def available() -> list[str]:
    """The executors that can be tried here."""
    found = []
    if importlib.util.find_spec("tensorrt") is not None:
        found.append("tensorrt")
    if importlib.util.find_spec("onnxruntime") is not None:
        from kontext_trt.runtime.executors.onnxruntime_session import has_cuda

        found += ["onnxruntime"] if has_cuda() else []
    return found


def psnr(one, two) -> float:
    """Of two pictures, in decibels."""
    error = np.asarray(one, float) - np.asarray(two, float)
    return float(20 * np.log10(255 / max(np.sqrt(np.mean(error**2)), 1e-6)))

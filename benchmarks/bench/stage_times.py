"""Measures the milliseconds of a torch pipeline's stages: by CUDA events, on the CPU by the clock."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import torch


class StageTimes:
    """Sets marks around calls; nothing waits until `take`."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._open: dict[str, Any] = {}
        self._spans: list[tuple[str, Any, Any]] = []

    def begin(self, stage: str) -> None:
        self._open[stage] = self._mark()

    def end(self, stage: str) -> None:
        self._spans.append((stage, self._open.pop(stage), self._mark()))

    def around(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call`, timed as `stage` each time."""

        @functools.wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            self.begin(stage)
            result = call(*arguments, **options)
            self.end(stage)
            return result

        return timed

    def take(self) -> dict[str, list[float]]:
        """Return what was timed since the last time, in ms, by stage."""
        if self._on_gpu:
            torch.cuda.synchronize()
        found: dict[str, list[float]] = {}
        for stage, start, end in self._spans:
            elapsed = start.elapsed_time(end) if self._on_gpu else 1e3 * (end - start)
            found.setdefault(stage, []).append(elapsed)
        self._spans.clear()
        self._open.clear()
        return found

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

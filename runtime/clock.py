"""Milliseconds a stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Host time of the stages of one request. A stage that runs twice adds up; one that a cache saved is absent."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.step_milliseconds: list[float] = []
        self._last_step = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._last_step = time.perf_counter()
        yield
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1e3 * (time.perf_counter() - start)

    def step(self) -> None:
        """Note that a step ended, counted from the one before or from the start of its stage."""
        now = time.perf_counter()
        self.step_milliseconds.append(1e3 * (now - self._last_step))
        self._last_step = now

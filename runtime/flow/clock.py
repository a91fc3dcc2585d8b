"""Measures the milliseconds per stage of a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .stages import Stage


class Clock:
    """Keeps the times of one request's stages: what the host measured around its own work, and what executors report.

    A stage that runs twice adds up; a network's that a cache saved is absent.
    """

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.step_milliseconds: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._add(name, 1e3 * (time.perf_counter() - start))

    def add(self, stage: Stage, milliseconds: float) -> None:
        """Add what an executor says that a stage of the flow took."""
        self._add(stage.name, milliseconds)
        if stage.name == "denoise":
            self.step_milliseconds.append(milliseconds)

    def _add(self, name: str, milliseconds: float) -> None:
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + milliseconds

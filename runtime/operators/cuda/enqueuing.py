"""Enqueues what computes an operator, and remembers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .device import KernelDevice


class Enqueuing:
    """Holds in `launches` what was enqueued, to be enqueued again for the same tensors."""

    def __init__(self, device: KernelDevice) -> None:
        self.launches: list[Callable[[], None]] = []
        self._device = device

    def enqueue(self, launch: Callable[[], None]) -> None:
        """Enqueue what a function does, and remember it."""
        self._enqueue(launch)

    def launch(self, function: object, grid: int, block: int, arguments: Sequence[tuple[Any, Any]]) -> None:
        """Enqueue a function of a one-dimensional grid, and remember it."""
        self._launch(function, grid, block, arguments)

    def _enqueue(self, launch: Callable[[], None]) -> None:
        launch()
        self.launches.append(launch)

    def _launch(self, function: object, grid: int, block: int, arguments: Sequence[tuple[Any, Any]]) -> None:
        self._enqueue(partial(self._device.launch, function, grid, block, arguments))

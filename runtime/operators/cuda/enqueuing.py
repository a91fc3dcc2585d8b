"""Enqueues what computes an operator, and remembers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...device.cuda import Handle
from .device import KernelDevice


class Enqueuing:
    """Holds in `launches` what was enqueued, to be enqueued again for the same tensors."""

    def __init__(self, device: KernelDevice) -> None:
        self.launches: list[Callable[[], None]] = []
        self._device = device
        self._stream: tuple[Handle, ...] = ()

    def enqueue(self, launch: Callable[[], None]) -> None:
        """Enqueue what a function does, and remember it."""
        self._enqueue(launch)

    def launch(self, function: object, grid: int, block: int, arguments: Sequence[tuple[Any, Any]]) -> None:
        """Enqueue a function of a one-dimensional grid, and remember it."""
        self._launch(function, grid, block, arguments)

    @contextmanager
    def on(self, stream: Handle) -> Iterator[None]:
        """Launch functions on another stream than the executor's meanwhile."""
        self._stream = (stream,)
        try:
            yield
        finally:
            self._stream = ()

    def _enqueue(self, launch: Callable[[], None]) -> None:
        launch()
        self.launches.append(launch)

    def _launch(self, function: object, grid: int, block: int, arguments: Sequence[tuple[Any, Any]]) -> None:
        self._enqueue(partial(self._device.launch, function, grid, block, arguments, *self._stream))

"""Enqueues what computes an operator, and remembers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...device.cuda import Handle
from .device import KernelDevice, Lane


class Enqueuing:
    """Holds in `launches` what was enqueued, to be enqueued again for the same tensors."""

    def __init__(self, device: KernelDevice) -> None:
        self.launches: list[Callable[[], None]] = []
        self._device = device
        self.stream: Handle = device.stream
        """The stream that everything is enqueued on now."""

    @property
    def stream_address(self) -> int:
        """The address of that stream."""
        return self._device.cuda.stream_address(self.stream)

    def enqueue(self, launch: Callable[[], None]) -> None:
        """Enqueue what a function does, and remember it."""
        self._enqueue(launch)

    def launch(self, function: object, grid: int, block: int, arguments: Sequence[tuple[Any, Any]]) -> None:
        """Enqueue a function of a one-dimensional grid, and remember it."""
        self._launch(function, grid, block, arguments)

    @contextmanager
    def beside(self, lane: Lane) -> Iterator[None]:
        """Enqueue on a lane meanwhile: it waits for what is before, and what is after need not wait for it."""
        before = self.stream
        self._enqueue(partial(self._device.cuda.follow, lane.stream, before, lane.event))
        self.stream = lane.stream
        try:
            yield
        finally:
            self.stream = before

    def join(self, lane: Lane) -> None:
        """Let what is enqueued from now on wait for a lane."""
        self._enqueue(partial(self._device.cuda.follow, self.stream, lane.stream, lane.event))

    def _enqueue(self, launch: Callable[[], None]) -> None:
        launch()
        self.launches.append(launch)

    def _launch(self, function: object, grid: int, block: int, arguments: Sequence[tuple[Any, Any]]) -> None:
        self._enqueue(partial(self._device.launch, function, grid, block, arguments, self.stream))

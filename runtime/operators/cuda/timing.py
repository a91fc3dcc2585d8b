"""Measures what is enqueued on a device, to choose the fastest of what computes the same."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from .device import KernelDevice

_REPEATS = 5


def milliseconds(device: KernelDevice, enqueue: Callable[[], None]) -> float:
    """Return the median time of what is enqueued, which must not be recorded meanwhile."""
    cuda, stream = device.cuda, device.stream
    times: list[float] = []
    start, end = cuda.event(), cuda.event()
    try:
        for _ in range(_REPEATS):
            cuda.record(start, stream)
            enqueue()
            cuda.record(end, stream)
            cuda.synchronize(stream)
            times.append(cuda.milliseconds(start, end))
    finally:
        cuda.destroy_event(start)
        cuda.destroy_event(end)
    return median(times[1:])

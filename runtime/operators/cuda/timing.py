"""Measures what is enqueued on a device, to choose the fastest of what computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from statistics import median

from ....engine.errors import ExecutorError, KontextError
from .device import KernelDevice

_REPEATS = 5


def each_milliseconds(
    device: KernelDevice,
    indices: Iterable[int],
    run: Callable[[int], None],
    refused: type[Exception],
    none_runs: str,
) -> dict[int, float]:
    """Return the time of each algorithm that runs, by its index.

    Args:
        device: The device.
        indices: The algorithms that the library names.
        run: What enqueues one.
        refused: What the library raises for one that it does not take after all.
        none_runs: What is said if there is no other.

    Raises:
        ExecutorError: None runs.
    """
    times: dict[int, float] = {}
    reason = ""
    for index in indices:
        try:
            times[index] = milliseconds(device, partial(run, index))
        except KontextError:
            raise
        except refused as error:
            reason = str(error)
    if not times:
        raise ExecutorError(f"{none_runs}: {reason}")
    return times


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

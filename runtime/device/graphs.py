"""A CUDA graph of a request, or of a part of it, and the events that time its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from ...engine.errors import ExecutorError
from .cuda import Cuda, CudaError, Handle


class Timeline:
    """Events between stages: one more than there are stages."""

    def __init__(self, cuda: Cuda, num_stages: int) -> None:
        self._cuda = cuda
        self.events: list[Handle] = []
        try:
            for _ in range(num_stages + 1):
                self.events.append(cuda.event())
        except CudaError:
            self.close()
            raise

    def milliseconds(self) -> tuple[float, ...]:
        """Of each stage. The device has finished them."""
        pairs = zip(self.events, self.events[1:], strict=False)
        return tuple(self._cuda.milliseconds(start, end) for start, end in pairs)

    def close(self) -> None:
        for event in self.events:
            self._cuda.destroy_event(event)
        self.events = []


class RecordedGraph:
    """What a function enqueues, recorded once and launched with one call.

    It holds addresses of a workspace and lives in that workspace alone, which closes it before it frees them. A closed
    graph refuses to be launched.
    """

    def __init__(self, cuda: Cuda, executable: Handle, timeline: Timeline) -> None:
        self._cuda = cuda
        self._executable: Handle | None = executable
        self.timeline = timeline

    @classmethod
    def record(
        cls,
        cuda: Cuda,
        stream: Handle,
        enqueue: Callable[[Sequence[Handle]], None],
        num_stages: int,
        *,
        relaxed: bool = False,
    ) -> RecordedGraph:
        """`enqueue` is given the events to record, and may allocate memory if `relaxed`.

        Raises what it raises, or CudaError; nothing is left behind.
        """
        timeline = Timeline(cuda, num_stages)
        try:
            try:
                cuda.begin_capture(stream, relaxed=relaxed)
                enqueue(timeline.events)
            except BaseException:
                _abandon(cuda, stream)
                raise
            graph = cuda.end_capture(stream)
            try:
                executable = cuda.instantiate(graph)
            finally:
                cuda.destroy_graph(graph)
        except BaseException:
            cuda.clear_error()
            timeline.close()
            raise
        return cls(cuda, executable, timeline)

    def launch(self, stream: Handle) -> None:
        if self._executable is None:
            raise ExecutorError("this graph was closed with the buffers that it was recorded on")
        self._cuda.launch(self._executable, stream)

    def close(self) -> None:
        if self._executable is not None:
            executable, self._executable = self._executable, None
            self._cuda.destroy_executable(executable)
            self.timeline.close()


def _abandon(cuda: Cuda, stream: Handle) -> None:
    """End a capture that failed half-way, whatever CUDA thinks of it."""
    with suppress(CudaError):
        cuda.destroy_graph(cuda.end_capture(stream))

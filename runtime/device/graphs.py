"""Records requests, or parts of them, as CUDA graphs, and defines the one owner of all graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ...engine.errors import ExecutorError
from ..flow.shared_stages import AnyStage
from ..flow.stages import Step
from ..flow.tensors import RequestShape
from .cuda import Cuda, CudaError, Handle

STAGES_KEPT = 128
"""The stages that the graphs of a request shape hold together, but for those of one alone.

Memory goes by stages: a request of 28 steps took 216 MB at full size. It has 31 stages, as has one of steps one by one.
"""
OTHER_STAGES = 8
"""The number of `STAGES_KEPT` that is left for other jobs than single steps.

A request of more steps than the rest would replace every graph before its next use, so its steps are not recorded one
by one.
"""


class Timeline:
    """Holds the events between stages: one more than there are stages."""

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
        """Return the milliseconds of each stage. The device must have finished them."""
        pairs = zip(self.events, self.events[1:], strict=False)
        return tuple(self._cuda.milliseconds(start, end) for start, end in pairs)

    def close(self) -> None:
        for event in self.events:
            self._cuda.destroy_event(event)
        self.events = []


class RecordedGraph:
    """Holds what a function enqueues, recorded once and launched with one call.

    A closed graph refuses to be launched.
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
        """Record what `enqueue` enqueues. It is given the events to record, and may allocate memory if `relaxed`.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Names stages that are enqueued together, with the copies before and after them: what a graph records."""

    stages: tuple[AnyStage, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def components(self) -> frozenset[str]:
        """The components that its stages run."""
        return frozenset(component for stage in self.stages for component in stage.components)


@dataclass(slots=True)
class _Shape:
    """Holds the graphs of one request shape, the last used at the end, and what is known of its stages and jobs."""

    graphs: dict[Job, RecordedGraph] = field(default_factory=dict)
    ran: set[AnyStage] = field(default_factory=set)
    refused: set[Job] = field(default_factory=set)

    def drop(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.graphs.pop(job).close()


class Graphs:
    """Owns every graph of an executor, by request shape and job.

    A graph holds addresses: of the buffers of its shape, of the engines that it runs, and of the arena. Whoever frees
    or moves one of these calls `drop` first. A job is worth recording when its stages have run since: the first run of
    a stage may allocate, load and choose kernels, which a graph must not.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._shapes: dict[RequestShape, _Shape] = {}

    def __len__(self) -> int:
        return sum(len(known.graphs) for known in self._shapes.values())

    def of(self, shape: RequestShape) -> dict[Job, RecordedGraph]:
        """Return a request shape's graphs, the last used at the end."""
        known = self._shapes.get(shape)
        return {} if known is None else dict(known.graphs)

    def find(self, shape: RequestShape, job: Job) -> RecordedGraph | None:
        """Return a job's graph, which counts as used now, or None if it has none."""
        known = self._known(shape)
        graph = known.graphs.pop(job, None)
        if graph is not None:
            known.graphs[job] = graph
        return graph

    def worth_recording(self, shape: RequestShape, job: Job) -> bool:
        """Return whether a job that has no graph should get one: its stages have run, and nothing speaks against it."""
        known = self._known(shape)
        return (
            self._enabled
            and known.ran.issuperset(job.stages)
            and job not in known.refused
            and not _is_one_of_too_many(shape, job)
        )

    def keep(self, shape: RequestShape, job: Job, graph: RecordedGraph) -> None:
        """Take a graph over."""
        self._known(shape).graphs[job] = graph

    def discard(self, shape: RequestShape, job: Job) -> None:
        """Close a job's graph, if it has one; its stages still count as run."""
        known = self._known(shape)
        if job in known.graphs:
            known.drop([job])

    def refuse(self, shape: RequestShape, job: Job) -> None:
        """Note that a job cannot be recorded, so that it is not tried again."""
        self._known(shape).refused.add(job)

    def note_run(self, shape: RequestShape, job: Job) -> None:
        """Note that a job's stages have run."""
        self._known(shape).ran.update(job.stages)

    def trim(self, shape: RequestShape) -> None:
        """Close the graphs of a shape that were used longest ago, beyond the stages that are kept, but for the last."""
        known, held = self._known(shape), 0
        for age, job in enumerate(reversed(list(known.graphs))):
            held += len(job.stages)
            if age and held > STAGES_KEPT:
                known.drop([job])

    def drop(self, *, shape: RequestShape | None = None, component: str | None = None) -> None:
        """Close the graphs of a shape, or of all, that run a component, or any; their stages count as not run."""
        for known in self._shapes.values() if shape is None else [self._known(shape)]:
            known.drop([job for job in known.graphs if component is None or component in job.components])
            known.ran = {stage for stage in known.ran if component is not None and component not in stage.components}

    def forget(self, shape: RequestShape) -> None:
        """Close a shape's graphs, and forget what was known of its jobs: its buffers are about to go."""
        self.drop(shape=shape)
        del self._shapes[shape]

    def _known(self, shape: RequestShape) -> _Shape:
        return self._shapes.setdefault(shape, _Shape())


def _is_one_of_too_many(shape: RequestShape, job: Job) -> bool:
    """Return whether a job is one step by itself, of a request with more steps than graphs are kept for."""
    alone = len(job.stages) == 1 and job.stages[0].name == Step.name
    return alone and shape.num_steps > STAGES_KEPT - OTHER_STAGES

"""A workspace on the device: one block of memory, the engines bound to its shapes, and graphs of what it performs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from ...engine.errors import ExecutorError, GpuMemoryError
from ..flow.executor import Array, Performed
from ..flow.stages import Stage, Step
from ..flow.tensors import RequestShape, TensorSpec
from .cuda import Cuda, CudaError, Handle
from .engine import Bound
from .graphs import RecordedGraph, Timeline
from .loading import Components
from .memory import Arena, DeviceBlock, DeviceTensor, Staging

logger = logging.getLogger(__name__)

GRAPHS_KEPT = 128
"""Of one workspace: a step by step request of 50 steps has 52."""
OTHER_GRAPHS = 8
"""Of those, what is left for other jobs than steps. A request of more steps than the rest would replace every graph
before its next use, so its steps are not recorded one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the workspaces of an executor share: they never run at the same time.

    `with_room` calls a function, and calls it once more without the buffers and graphs of others if GPU memory ran out.
    """

    cuda: Cuda
    stream: Handle
    arena: Arena
    components: Components
    graphs: bool
    with_room: Callable[[Callable[[], tuple[float, ...]], DeviceWorkspace], tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Stages that are enqueued together, with the copies before and after them. What a graph records."""

    stages: tuple[Stage, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class DeviceWorkspace:
    """See `Workspace`. A job of stages that have run before is recorded as a CUDA graph, and launched with one call
    from then on; one that cannot be recorded is enqueued call by call."""

    def __init__(self, shape: RequestShape, tensors: Mapping[str, TensorSpec], machine: Machine) -> None:
        self.shape = shape
        self._machine = machine
        self._block = DeviceBlock(machine.cuda, tensors)
        try:
            self._staging = Staging(machine.cuda, tensors)
        except CudaError:
            self._block.close()
            raise
        self._bound: dict[str, Bound] = {}
        self._graphs: dict[Job, RecordedGraph] = {}
        self._warm: set[Stage] = set()
        self._unrecordable: set[Job] = set()
        self._stage: Stage | None = None  # that is being enqueued

    @property
    def size_bytes(self) -> int:
        """Device memory of its tensors."""
        return self._block.size_bytes

    @property
    def num_graphs(self) -> int:
        return len(self._graphs)

    def __getitem__(self, name: str) -> DeviceTensor:
        return self._block.tensors[name]

    def run(self, component: str, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        machine = self._machine
        engine = machine.components.ready(component)
        if component not in self._bound:
            self._bound[component] = engine.bind({name: tensor.shape for name, tensor in inputs.items()})
        bound = self._bound[component]
        machine.arena.reserve(bound.activation_bytes)
        bound.enqueue({**inputs, **outputs}, (machine.arena.address, machine.arena.size_bytes), machine.stream)

    def copy(self, source: DeviceTensor, to: DeviceTensor) -> None:
        assert source.size_bytes == to.size_bytes
        if source.size_bytes:
            self._machine.cuda.copy(to.address, source.address, source.size_bytes, self._machine.stream)

    def perform(self, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]) -> Performed:
        for name, array in inputs.items():
            self._staging.arrays[name][...] = array
        jobs = self._jobs(stages, inputs, outputs)
        milliseconds = self._machine.with_room(lambda: self._perform(jobs), self)
        self._trim()
        return Performed(
            outputs={name: self._staging.arrays[name].copy() for name in outputs}, milliseconds=milliseconds
        )

    def _perform(self, jobs: Sequence[Job]) -> tuple[float, ...]:
        """Milliseconds of each stage. The stream is idle afterwards, however it ends."""
        milliseconds: list[float] = []
        for job in jobs:
            graph = self._graph(job)
            timeline = graph.timeline if graph is not None else Timeline(self._machine.cuda, len(job.stages))
            try:
                if graph is not None:
                    graph.launch(self._machine.stream)
                else:
                    self._enqueue(job, timeline.events)
                self._machine.cuda.synchronize(self._machine.stream)
                milliseconds += timeline.milliseconds()
            except BaseException:
                self._settle()
                raise
            finally:
                if graph is None:
                    timeline.close()
            self._warm.update(job.stages)
        return tuple(milliseconds)

    def _jobs(self, stages: Sequence[Stage], inputs: Iterable[str], outputs: Iterable[str]) -> list[Job]:
        """One job if a graph can record all of it, else the longest runs of stages of which it can, and the rest."""
        parts = [tuple(part) for _, part in groupby(stages, key=self._may_record)]
        return [
            Job(
                stages=part,
                inputs=tuple(inputs) if index == 0 else (),
                outputs=tuple(outputs) if index == len(parts) - 1 else (),
            )
            for index, part in enumerate(parts)
        ]

    def _may_record(self, stage: Stage) -> bool:
        return all(self._machine.components.recordable(component) for component in stage.components)

    def _graph(self, job: Job) -> RecordedGraph | None:
        """Its graph, recorded now if its stages ran before; None if it is to be enqueued call by call."""
        if job not in self._graphs and self._warm.issuperset(job.stages) and self._recordable(job):
            self._record(job)
        graph = self._graphs.pop(job, None)
        if graph is not None:
            self._graphs[job] = graph  # the last to be trimmed
        return graph

    def _enqueue(self, job: Job, events: Sequence[Handle]) -> None:
        cuda, stream, staged = self._machine.cuda, self._machine.stream, self._staging.addresses
        for name in job.inputs:
            cuda.copy(self[name].address, staged[name], self[name].size_bytes, stream)
        cuda.record(events[0], stream)
        for stage, after in zip(job.stages, events[1:], strict=True):
            self._stage = stage
            stage.run(self)
            cuda.record(after, stream)
        self._stage = None
        for name in job.outputs:
            cuda.copy(staged[name], self[name].address, self[name].size_bytes, stream)

    def _recordable(self, job: Job) -> bool:
        components = {component for stage in job.stages for component in stage.components}
        return (
            self._machine.graphs
            and job not in self._unrecordable
            and not self._is_one_of_too_many(job)
            and all(map(self._may_record, job.stages))
            and all(self._bound[component].recordable(self._machine.stream) for component in components)
        )

    def _is_one_of_too_many(self, job: Job) -> bool:
        """A step by itself, of more than are kept."""
        alone = len(job.stages) == 1 and isinstance(job.stages[0], Step)
        return alone and self.shape.num_steps > GRAPHS_KEPT - OTHER_GRAPHS

    def _record(self, job: Job) -> None:
        """If it cannot be recorded, say so, and never try again: with the stage that failed, if that is known."""
        machine = self._machine
        self._stage = None
        try:
            self._graphs[job] = RecordedGraph.record(
                machine.cuda,
                machine.stream,
                lambda events: self._enqueue(job, events),
                len(job.stages),
                relaxed=machine.components.allocates,
            )
        except ExecutorError as error:
            if isinstance(error, CudaError) and error.sticky:
                raise
            machine.components.forget_failure()
            if isinstance(error, GpuMemoryError):
                logger.warning("no GPU memory for a CUDA graph now: %s", str(error))
                return
            self._unrecordable.add(job)
            stages = job.stages if self._stage is None else (self._stage,)
            if self._stage is not None:
                machine.components.keep_out_of_graphs(self._stage.components)
            logger.warning(
                "%s cannot be recorded in a CUDA graph (%s); it is enqueued call by call",
                " ".join(dict.fromkeys(stage.name for stage in stages)),
                str(error),
            )

    def _trim(self) -> None:
        """Close the graphs that were used longest ago."""
        while len(self._graphs) > GRAPHS_KEPT:
            self._graphs.pop(next(iter(self._graphs))).close()

    def _settle(self) -> None:
        """After a failure: wait for what was enqueued, so that the next request finds the stream idle."""
        with suppress(CudaError):
            self._machine.cuda.synchronize(self._machine.stream)
        self._machine.cuda.clear_error()

    def forget_graphs(self) -> None:
        """Close every graph: something that they recorded is about to move."""
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()
        self._warm.clear()

    def forget_engine(self, component: str) -> None:
        """Let go of an engine that is about to be released."""
        if component not in self._bound:
            return
        for job in [job for job in self._graphs if any(component in stage.components for stage in job.stages)]:
            self._graphs.pop(job).close()
        self._warm = {stage for stage in self._warm if component not in stage.components}
        self._bound.pop(component).close()

    def close(self) -> None:
        """Graphs first, then what they recorded, then the memory. The device has finished with all of it."""
        self.forget_graphs()
        for bound in self._bound.values():
            bound.close()
        self._bound.clear()
        self._staging.close()
        self._block.close()

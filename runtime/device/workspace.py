"""Implements a workspace in one block of device memory, with jobs enqueued call by call or launched as graphs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from ...engine.errors import ExecutorError, GpuMemoryError
from ..flow.group import Group, Piece
from ..flow.shared_stages import AnyStage, Pieces, SharedStage
from ..flow.tensors import RequestShape, TensorSpec
from ..flow.workspace import Array
from .agreement import Agreement
from .cuda import Cuda, CudaError, Handle
from .graphs import Graphs, Job, RecordedGraph, Timeline
from .kept import KeptOnDevice
from .loading import LoadedEngines
from .memory import Arena, DeviceBlock, DeviceTensor, Staging

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedDevice:
    """Holds what the workspaces of an executor share: they never run at the same time.

    `group` holds the ranks that share its requests, if it is one of several, and `agreement` is how they agree.
    """

    cuda: Cuda
    stream: Handle
    graphs: Graphs
    arena: Arena
    engines: LoadedEngines
    kept: KeptOnDevice
    group: Group | None = None
    agreement: Agreement | None = None


class DeviceWorkspace:
    """Implements `Workspace` on the device.

    A job of stages that have run before is recorded as a CUDA graph, and launched with one call from then on; one that
    cannot be recorded is enqueued call by call.
    """

    def __init__(self, shape: RequestShape, tensors: Mapping[str, TensorSpec], device: SharedDevice) -> None:
        self.shape = shape
        self._device = device
        self._block = DeviceBlock(device.cuda, tensors)
        try:
            self._staging = Staging(device.cuda, tensors)
        except CudaError:
            self._block.close()
            raise
        self._stage: AnyStage | None = None  # that is being enqueued

    @property
    def size_bytes(self) -> int:
        """The device memory of its tensors, in bytes."""
        return self._block.size_bytes

    def __getitem__(self, name: str) -> DeviceTensor:
        return self._block.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._block.tensors

    def run(self, component: str, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        device = self._device
        inputs = {**inputs, **device.kept.of(component)}
        shapes = {name: tensor.shape for name, tensor in inputs.items()}
        bound = device.engines.bind(self.shape, component, shapes)
        device.arena.reserve(bound.activation_bytes)
        bound.place(device.arena.place)
        bound.enqueue({**inputs, **outputs}, device.stream)

    def copy(self, source: DeviceTensor, to: DeviceTensor) -> None:
        assert source.size_bytes == to.size_bytes
        if source.size_bytes:
            self._device.cuda.copy(to.address, source.address, source.size_bytes, self._device.stream)

    def swap(self, sends: Pieces, receives: Pieces) -> None:
        assert self._device.group is not None
        sent, received = (
            [Piece(rank, one.address, one.size_bytes) for rank, one in part] for part in (sends, receives)
        )
        self._device.group.swap(sent, received)

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Put arrays where the next job that has them as inputs copies them from."""
        for name, array in inputs.items():
            self._staging.arrays[name][...] = array

    def read(self, outputs: Iterable[str]) -> dict[str, Array]:
        """Return copies of what the last job that has these as outputs has given."""
        return {name: self._staging.arrays[name].copy() for name in outputs}

    def jobs(self, stages: Sequence[AnyStage], inputs: Iterable[str], outputs: Iterable[str]) -> list[Job]:
        """Return one job if a graph can record all of it, else several.

        They are the longest runs of stages of which a graph can record all, and the rest: on every rank of a group, so
        that all have the same jobs. The first job has the inputs, the last the outputs. Encoders of a group are in one
        job: ranks would wait, before the next one, for what others encode.
        """
        may = {stage.name: True for stage in stages}
        for stage in stages:
            may[stage.name] &= self._device.engines.may_record(stage.components)
        agreed = dict(zip(may, self._on_all(list(may.values())), strict=True))
        encoders = {stage.name for stage in stages if isinstance(stage, SharedStage) and stage.encodes}
        if not all(agreed[name] for name in encoders):
            agreed |= dict.fromkeys(encoders, False)
        parts = [tuple(part) for _, part in groupby(stages, key=lambda stage: agreed[stage.name])]
        return [
            Job(
                stages=part,
                inputs=tuple(inputs) if index == 0 else (),
                outputs=tuple(outputs) if index == len(parts) - 1 else (),
            )
            for index, part in enumerate(parts)
        ]

    def perform(self, jobs: Sequence[Job]) -> tuple[float, ...]:
        """Perform jobs, and return the milliseconds of each stage. The stream is idle afterwards, however it ends."""
        milliseconds: list[float] = []
        for job in jobs:
            graph = self._graph(job)
            timeline = graph.timeline if graph is not None else Timeline(self._device.cuda, len(job.stages))
            try:
                if graph is not None:
                    graph.launch(self._device.stream)
                else:
                    self._enqueue(job, timeline.events)
                self._device.cuda.synchronize(self._device.stream)
                milliseconds += timeline.milliseconds()
            except BaseException:
                self._settle()
                raise
            finally:
                if graph is None:
                    timeline.close()
            self._device.graphs.note_run(self.shape, job)
        return tuple(milliseconds)

    def _on_all(self, flags: list[bool]) -> list[bool]:
        """Return which flags hold on every rank of the group, or as they are if there is none."""
        agreement = self._device.agreement
        return flags if agreement is None else agreement.all_of(flags)

    def _graph(self, job: Job) -> RecordedGraph | None:
        """Return a job's graph, recorded now if its stages ran before, or None if it is to be enqueued call by call.

        The ranks of a group launch what they have recorded together, record together, or enqueue together.
        """
        graphs, engines = self._device.graphs, self._device.engines
        graph = graphs.find(self.shape, job)
        may = graph is not None or (
            graphs.worth_recording(self.shape, job)
            and engines.may_record(job.components)
            and engines.recordable_now(self.shape, job.components)
        )
        recorded, may = self._on_all([graph is not None, may])
        if recorded or not may:
            return graph if recorded else None
        graphs.discard(self.shape, job)  # other ranks have none of it
        self._record(job)
        (recorded,) = self._on_all([graphs.find(self.shape, job) is not None])
        if not recorded:
            graphs.discard(self.shape, job)
        return graphs.find(self.shape, job)

    def _enqueue(self, job: Job, events: Sequence[Handle]) -> None:
        cuda, stream, staged = self._device.cuda, self._device.stream, self._staging.addresses
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

    def _record(self, job: Job) -> None:
        """Record a job; if that fails, say so with the stage that failed, if it is known, and never try again."""
        device = self._device
        self._stage = None
        device.engines.settle(self.shape, job.components)
        try:
            graph = RecordedGraph.record(
                device.cuda,
                device.stream,
                lambda events: self._enqueue(job, events),
                len(job.stages),
                relaxed=device.engines.allocates,
            )
            device.graphs.keep(self.shape, job, graph)
        except ExecutorError as error:
            if isinstance(error, CudaError) and error.sticky:
                raise
            device.engines.forget_failure()
            if isinstance(error, GpuMemoryError):
                logger.warning("no GPU memory for a CUDA graph now: %s", str(error))
                return
            device.graphs.refuse(self.shape, job)
            stages = job.stages if self._stage is None else (self._stage,)
            if self._stage is not None:
                device.engines.keep_out_of_graphs(self._stage.components)
            logger.warning(
                "%s cannot be recorded in a CUDA graph (%s); it is enqueued call by call",
                " ".join(dict.fromkeys(stage.name for stage in stages)),
                str(error),
            )

    def _settle(self) -> None:
        """Wait, after a failure, for what was enqueued, so that the next request finds the stream idle."""
        with suppress(CudaError):
            self._device.cuda.synchronize(self._device.stream)
        self._device.cuda.clear_error()

    def close(self) -> None:
        """Close the graphs first, then what they recorded, then the memory. The device has finished with all of it."""
        self._device.graphs.forget(self.shape)
        self._device.engines.unbind(self.shape)
        self._staging.close()
        self._block.close()

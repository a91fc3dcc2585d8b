"""Implements the executor on a CUDA device, which TensorRT and ONNX Runtime share."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from traceback import clear_frames
from typing import TypeVar

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, GpuMemoryError
from ..flow.executor import Performed
from ..flow.group import Group
from ..flow.kept import KeptValues, kept_specs
from ..flow.shared_stages import AnyStage
from ..flow.shared_tensors import workspace_tensors
from ..flow.tensors import RequestShape, TensorSpec, input_specs, output_specs
from ..flow.workspace import Array
from .agreement import Agreement
from .cuda import Cuda, Handle
from .engine import Engines
from .graphs import Graphs
from .kept import KeptOnDevice
from .loading import LoadedEngines
from .memory import Arena, DeviceBlock, Staging
from .residency import ResidencyPlan
from .workspace import DeviceWorkspace, SharedDevice

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

WORKSPACES_KEPT = 4
"""The number of request shapes whose buffers and graphs are kept.

The buffers of one take 120 MB at 1024x1024 with a reference, its graphs 216 MB.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """Says whether CUDA graphs are recorded (`graphs`), and of how many request shapes the buffers are kept."""

    graphs: bool = True
    workspaces: int = WORKSPACES_KEPT


class DeviceExecutor:
    """Implements `Executor` on a CUDA device.

    It owns the stream, the graphs, the arena, the engines and the workspaces, and closes them last first.

    Args:
        bundle: The bundle that it runs.
        engines: What opens its components.
        cuda: The device.
        plan: What of the bundle stays in the device's memory.
        options: How the device is used.
        join: What joins the ranks that share its requests, on the stream that it is given; None for a device alone.
    """

    def __init__(
        self,
        bundle: Bundle,
        engines: Engines,
        cuda: Cuda,
        plan: ResidencyPlan,
        options: DeviceOptions,
        *,
        join: Callable[[Handle], Group] | None = None,
    ) -> None:
        self.name = f"{engines.name} (cuda:{cuda.device})"
        self.residency = plan
        self._bundle, self._engines, self._cuda, self._options = bundle, engines, cuda, options
        self._workspaces: OrderedDict[RequestShape, DeviceWorkspace] = OrderedDict()
        self._closed = False
        moving = [name for name, residency in plan.residencies.items() if not residency.stays]
        if moving and options.graphs:
            logger.warning("%s not in GPU memory all the time, so not in a CUDA graph", _are(moving))
        self._stream = cuda.stream()
        self._group = None if join is None else join(self._stream)
        self._graphs = Graphs(enabled=options.graphs)
        engines.before_shrinking(self._graphs.drop)
        self._arena = Arena(cuda, self._stream, self._graphs)
        self._loaded = LoadedEngines(engines, plan, cuda, self._stream, self._graphs, self._arena)
        self._kept = KeptOnDevice(cuda, self._stream, kept_specs(bundle))
        self._agreement = None if self._group is None else Agreement(cuda, self._stream, self._group)
        self._shared = SharedDevice(
            cuda=cuda,
            stream=self._stream,
            graphs=self._graphs,
            arena=self._arena,
            engines=self._loaded,
            kept=self._kept,
            group=self._group,
            agreement=self._agreement,
        )

    @property
    def lost(self) -> str:
        return "" if self._cuda.lost is None else str(self._cuda.lost)

    def perform(
        self, shape: RequestShape, stages: Sequence[AnyStage], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Performed:
        with self._turn():
            workspace = self._workspace(shape)
            workspace.write(inputs)
            jobs = workspace.jobs(stages, inputs, outputs)
            if self._group is None:
                milliseconds = self._with_room(lambda: workspace.perform(jobs), keep=shape)
            else:  # what was sent cannot be sent again by one rank alone
                milliseconds = workspace.perform(jobs)
            self._graphs.trim(shape)
            return Performed(outputs=workspace.read(outputs), milliseconds=milliseconds)

    def _workspace(self, shape: RequestShape) -> DeviceWorkspace:
        """Return the workspace of a shape, made now if it is not among those used last."""
        if shape in self._workspaces:
            self._workspaces.move_to_end(shape)
            return self._workspaces[shape]
        self._engines.check(shape)
        while len(self._workspaces) >= self._options.workspaces:
            self._drop_oldest()
        tensors = workspace_tensors(self._bundle, shape)
        self._with_room(self._kept.allocate)
        self._workspaces[shape] = self._with_room(lambda: DeviceWorkspace(shape, tensors, self._shared))
        return self._workspaces[shape]

    def keep(self, values: KeptValues) -> None:
        with self._turn():
            self._with_room(self._kept.allocate)
            self._kept.write(values)

    def free_bytes(self) -> int:
        """Return the bytes of the device's memory that nobody has."""
        with self._turn():
            return self._cuda.memory()[0]

    @property
    def held_bytes(self) -> dict[str, int]:
        """The bytes of the device's memory that the arena of activations and the buffers of requests take."""
        buffers = sum(workspace.size_bytes for workspace in self._workspaces.values())
        return {"arena": self._arena.size_bytes, "buffers": buffers + self._kept.size_bytes}

    def load(self, component: str) -> None:
        with self._turn():
            if self._loaded.stays(component):
                self._with_room(lambda: self._loaded.ready(component))

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with self._turn():
            self._with_room(self._kept.allocate)
            shapes = {name: tuple(array.shape) for name, array in inputs.items()}
            shapes |= {name: tensor.shape for name, tensor in self._kept.of(component).items()}
            specs, outs = input_specs(self._bundle, component, shapes), output_specs(self._bundle, component, shapes)
            ins = {name: spec for name, spec in specs.items() if name in inputs}
            return self._with_room(lambda: self._run(component, inputs, ins, outs))

    def _run(
        self,
        component: str,
        inputs: Mapping[str, Array],
        ins: Mapping[str, TensorSpec],
        outs: Mapping[str, TensorSpec],
    ) -> dict[str, Array]:
        block = DeviceBlock(self._cuda, {**ins, **outs})
        try:
            staging = Staging(self._cuda, {**ins, **outs})
            try:
                tensors = {**block.tensors, **self._kept.of(component)}
                bound = self._loaded.ready(component).bind(
                    {name: tensor.shape for name, tensor in tensors.items() if name not in outs}
                )
                try:
                    for name, array in inputs.items():
                        staging.arrays[name][...] = array
                        self._copy(block.tensors[name].address, staging.addresses[name], ins[name])
                    self._arena.reserve(bound.activation_bytes)
                    bound.place(self._arena.place)
                    bound.enqueue(tensors, self._stream)
                    for name, spec in outs.items():
                        self._copy(staging.addresses[name], block.tensors[name].address, spec)
                finally:
                    self._cuda.synchronize(self._stream)
                    bound.close()
                return {name: staging.arrays[name].copy() for name in outs}
            finally:
                staging.close()
        finally:
            block.close()

    def _copy(self, to: int, source: int, spec: TensorSpec) -> None:
        if spec.size_bytes:
            self._cuda.copy(to, source, spec.size_bytes, self._stream)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Make the device this thread's, if it still works; others of the process that share memory with it wait."""
        with self._engines.turn:
            if self._closed:
                raise ExecutorError("this executor is closed")
            if self._cuda.lost is not None:
                raise ExecutorError(f"the GPU was lost to this process earlier: {self._cuda.lost}") from self._cuda.lost
            self._cuda.use()
            yield

    def _with_room(self, make: Callable[[], Made], keep: RequestShape | None = None) -> Made:
        """Return what `make` returns; if there is no memory, try once more without what others keep."""
        words = ""
        for attempt in range(2):
            try:
                return make()
            except GpuMemoryError as error:
                words = str(error)
                clear_frames(error.__traceback__)  # they may hold what is to be freed
            if attempt or not self._make_room(keep):
                break
            logger.warning("%s; trying again without the buffers and graphs of other requests", words)
        raise GpuMemoryError(f"{words}. With a smaller budget (--vram, vram_bytes) networks are loaded for their turn")

    def _make_room(self, keep: RequestShape | None) -> bool:
        """Let go of all buffers but those of a shape, of all graphs and of the arena; return whether there was any."""
        others = [shape for shape in self._workspaces if shape != keep]
        for shape in others:
            self._workspaces.pop(shape).close()
        held = bool(others) or len(self._graphs) > 0 or self._arena.size_bytes > 0
        self._graphs.drop()
        self._arena.close()  # it may have grown for what is gone
        self._engines.shrink()
        return held

    def _drop_oldest(self) -> None:
        _, workspace = self._workspaces.popitem(last=False)
        workspace.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._cuda.lost is not None:
            return  # nothing can be released any more, but by ending the process
        with self._engines.turn, ExitStack() as stack:  # whatever fails, the rest is released; the last is called first
            stack.callback(self._cuda.destroy_stream, self._stream)
            if self._agreement is not None:
                stack.callback(self._agreement.close)
            stack.callback(self._kept.close)
            stack.callback(self._arena.close)
            stack.callback(self._loaded.close)
            for workspace in self._workspaces.values():
                stack.callback(workspace.close)
            stack.callback(self._cuda.synchronize, self._stream)
            stack.callback(self._cuda.use)
        self._workspaces.clear()


def _are(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"

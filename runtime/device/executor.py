"""Components run on a CUDA device, by TensorRT or ONNX Runtime: the executor that both share."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from traceback import clear_frames
from typing import TypeVar

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, GpuMemoryError
from ..flow.executor import Array
from ..flow.tensors import RequestShape, TensorSpec, input_specs, output_specs, request_tensors, transformer_precision
from .cuda import Cuda
from .engine import Engines
from .loading import Components
from .memory import Arena, DeviceBlock, Staging
from .residency import Residency, ResidencyPlan
from .workspace import DeviceWorkspace, Machine

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

WORKSPACES_KEPT = 4
"""Each holds the buffers and graphs of one request shape: 120 and 216 MB at 1024x1024 with a reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """`graphs` records CUDA graphs. `workspaces` is the number of request shapes whose buffers are kept."""

    graphs: bool = True
    workspaces: int = WORKSPACES_KEPT


class DeviceExecutor:
    """See `Executor`. It owns the stream, the arena, the engines and the workspaces, and closes them in that order,
    last first."""

    def __init__(
        self, bundle: Bundle, engines: Engines, cuda: Cuda, plan: ResidencyPlan, options: DeviceOptions
    ) -> None:
        self.name = f"{engines.name} (cuda:{cuda.device})"
        self.residency = plan
        self._bundle, self._engines, self._cuda, self._options = bundle, engines, cuda, options
        self._workspaces: OrderedDict[RequestShape, DeviceWorkspace] = OrderedDict()
        self._closed = False
        moving = [name for name, residency in plan.residencies.items() if residency is not Residency.RESIDENT]
        if moving and options.graphs:
            logger.warning("%s not in GPU memory all the time, so not in a CUDA graph", _are(moving))
        self._stream = cuda.stream()
        self._arena = Arena(cuda, self._stream, self._forget_graphs)
        self._components = Components(engines, plan, self._stream, self._forget_engine)
        self._machine = Machine(
            cuda=cuda,
            stream=self._stream,
            arena=self._arena,
            components=self._components,
            graphs=options.graphs,
            with_room=self._with_room,
        )

    def workspace(self, shape: RequestShape) -> DeviceWorkspace:
        self._enter()
        if shape in self._workspaces:
            self._workspaces.move_to_end(shape)
            return self._workspaces[shape]
        self._engines.check(shape)
        while len(self._workspaces) >= self._options.workspaces:
            self._drop_oldest()
        tensors = request_tensors(shape, self._bundle.manifest.model, transformer_precision(self._bundle))
        self._workspaces[shape] = self._with_room(lambda: DeviceWorkspace(shape, tensors, self._machine))
        return self._workspaces[shape]

    def free_bytes(self) -> int:
        """Memory of the device that nobody has."""
        self._enter()
        return self._cuda.memory()[0]

    @property
    def held_bytes(self) -> dict[str, int]:
        """What of the device's memory is the arena of activations, and what the buffers of requests."""
        buffers = sum(workspace.size_bytes for workspace in self._workspaces.values())
        return {"arena": self._arena.size_bytes, "buffers": buffers}

    def load(self, component: str) -> None:
        self._enter()
        if self._components.stays(component):
            self._with_room(lambda: self._components.ready(component))

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._enter()
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        ins, outs = input_specs(self._bundle, component, shapes), output_specs(self._bundle, component, shapes)
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
                bound = self._components.ready(component).bind({name: spec.shape for name, spec in ins.items()})
                try:
                    for name, array in inputs.items():
                        staging.arrays[name][...] = array
                        self._copy(block.tensors[name].address, staging.addresses[name], ins[name])
                    self._arena.reserve(bound.activation_bytes)
                    bound.enqueue(block.tensors, (self._arena.address, self._arena.size_bytes), self._stream)
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

    def _enter(self) -> None:
        """Make the device this thread's, if it still works."""
        if self._closed:
            raise ExecutorError("this executor is closed")
        if self._cuda.lost is not None:
            raise ExecutorError(f"the GPU was lost to this process earlier: {self._cuda.lost}") from self._cuda.lost
        self._cuda.use()

    def _with_room(self, make: Callable[[], Made], keep: DeviceWorkspace | None = None) -> Made:
        """Try again, once, without what others keep if there is no memory."""
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

    def _make_room(self, keep: DeviceWorkspace | None) -> bool:
        others = [shape for shape, workspace in self._workspaces.items() if workspace is not keep]
        for shape in others:
            self._workspaces.pop(shape).close()
        graphs = keep is not None and keep.num_graphs > 0
        if keep is not None:
            keep.forget_graphs()
        arena = self._arena.size_bytes > 0
        self._arena.close()  # it may have grown for what is gone
        return bool(others) or graphs or arena

    def _drop_oldest(self) -> None:
        _, workspace = self._workspaces.popitem(last=False)
        workspace.close()

    def _forget_graphs(self) -> None:
        for workspace in self._workspaces.values():
            workspace.forget_graphs()

    def _forget_engine(self, component: str) -> None:
        self._cuda.synchronize(self._stream)
        for workspace in self._workspaces.values():
            workspace.forget_engine(component)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._cuda.lost is not None:
            return  # nothing can be released any more, but by ending the process
        with ExitStack() as stack:  # whatever fails, the rest is released, too; the last is called first
            stack.callback(self._cuda.destroy_stream, self._stream)
            stack.callback(self._arena.close)
            stack.callback(self._components.close)
            for workspace in self._workspaces.values():
                stack.callback(workspace.close)
            stack.callback(self._cuda.synchronize, self._stream)
            stack.callback(self._cuda.use)
        self._workspaces.clear()


def _are(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"

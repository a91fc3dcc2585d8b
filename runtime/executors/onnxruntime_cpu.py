"""Runs components by ONNX Runtime on the CPU: the reference, and what runs where there is no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.identity import HeldFiles
from ...engine.components import KNOWN_COMPONENTS, Precision, Runs
from ...engine.errors import ExecutorError, KontextError
from ..flow.executor import LastWorkspace, Performed, run_in_turn, weakly
from ..flow.group import Group
from ..flow.kept import KeptOnHost, KeptValues
from ..flow.shared_stages import AnyStage
from ..flow.shared_tensors import workspace_tensors
from ..flow.tensors import RequestShape, empty, output_specs
from ..flow.workspace import Array
from ..operators.cpu.shared import SharedOperators
from ..operators.failures import raising_whole
from .host_workspace import HostWorkspace
from .onnxruntime_session import Kernels, failed, import_onnxruntime, open_session
from .shared_graph import own_text

if TYPE_CHECKING:
    import onnxruntime


SHARING_OPTIONS = {"session.intra_op.allow_spinning": "0"}
"""The options of sessions that share the CPU with those of other ranks: what waits must not keep them from it."""


class OnnxRuntimeCpu:
    """Implements `Executor` on the CPU. Sessions are made when a component first runs, or by `load`.

    Args:
        bundle: The bundle that it runs.
        threads: The number of threads, 0 for one per core.
        group: The ranks that share its requests, of which it is one.
    """

    name = "onnxruntime (cpu)"
    lost = ""

    def __init__(self, bundle: Bundle, *, threads: int = 0, group: Group | None = None) -> None:
        self._bundle = bundle
        self._threads = threads
        self._group = group
        self._ort = import_onnxruntime()
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._held: dict[str, HeldFiles] = {}
        self._kept = KeptOnHost(bundle)
        self._workspaces = LastWorkspace(weakly(self._workspace))

    def keep(self, values: KeptValues) -> None:
        self._kept.write(values)

    def perform(
        self, shape: RequestShape, stages: Sequence[AnyStage], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Performed:
        workspace = self._workspaces.of(shape)
        for name, array in inputs.items():
            workspace[name][...] = array
        milliseconds = run_in_turn(stages, workspace)
        return Performed(outputs={name: workspace[name].copy() for name in outputs}, milliseconds=milliseconds)

    def _workspace(self, shape: RequestShape) -> HostWorkspace:
        try:
            return HostWorkspace(shape, workspace_tensors(self._bundle, shape), weakly(self._compute), self._group)
        except MemoryError as error:
            raise ExecutorError(f"a request of this size does not fit into this machine's memory: {error}") from error

    def load(self, component: str) -> None:
        if component in self._sessions:
            return
        if self._bundle.graph(component).precision is Precision.BF16:
            raise ExecutorError(
                f"{component} is in bf16, for which ONNX Runtime has no CPU kernels; export the checkpoint with "
                "--precision fp32 to run it on this machine"
            )
        providers = ["CPUExecutionProvider"]
        session = open_session(
            self._bundle,
            component,
            providers,
            threads=self._threads,
            entries=SHARING_OPTIONS if self._group else {},
            own_text=own_text(self._bundle, component, self._group),
            kernels=self._kernels(component),
        )
        self._held[component] = self._bundle.hold(component)
        self._sessions[component] = session

    def _kernels(self, component: str) -> Kernels | None:
        """Return what exchanges with other ranks in a component; None if it does not."""
        if self._group is None or KNOWN_COMPONENTS[component].runs is not Runs.STEP:
            return None
        return SharedOperators(self._group, self._threads).opening

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = {**inputs, **self._kept.of(component)}
        specs = output_specs(self._bundle, component, {name: array.shape for name, array in given.items()})
        outputs: dict[str, Array] = {name: empty(spec) for name, spec in specs.items()}
        self._compute(component, inputs, outputs)
        return outputs

    def _compute(self, component: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.load(component)
        self._held[component].check()  # they are mapped: what is written to them is computed with
        inputs = {**self._kept.of(component), **inputs}
        session, precision = self._sessions[component], self._bundle.graph(component).precision
        binding, ports = session.io_binding(), self._bundle.component(component)
        for port in ports.inputs:
            array, onnx_type = inputs[port.name], port.element_type.resolve(precision).number.onnx_number
            if array.size:
                binding.bind_input(port.name, "cpu", 0, onnx_type, list(array.shape), array.ctypes.data)
            else:  # no memory, so no address
                binding.bind_ortvalue_input(port.name, self._ort.OrtValue.ortvalue_from_numpy(array))
        for port in ports.outputs:
            array, onnx_type = outputs[port.name], port.element_type.resolve(precision).number.onnx_number
            if array.size:
                binding.bind_output(port.name, "cpu", 0, onnx_type, list(array.shape), array.ctypes.data)
            else:
                binding.bind_output(port.name)
        try:
            with raising_whole() if self._group else nullcontext():
                session.run_with_iobinding(binding)
        except KontextError:  # a kernel's own
            raise
        except Exception as error:
            raise failed(component, {name: array.shape for name, array in inputs.items()}, error) from error

    def close(self) -> None:
        self._sessions.clear()
        for held in self._held.values():
            held.close()
        self._held.clear()
        self._workspaces.clear()

"""Runs components by ONNX Runtime on the CPU: the reference, and what runs where there is no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.identity import HeldFiles
from ...engine.components import Precision
from ...engine.errors import ExecutorError
from ..flow.executor import LastWorkspace, Performed, run_in_turn, weakly
from ..flow.kept import KeptOnHost, KeptValues
from ..flow.stages import Stage
from ..flow.tensors import RequestShape, empty, output_specs, request_tensors
from ..flow.workspace import Array
from .host_workspace import HostWorkspace
from .onnxruntime_session import failed, import_onnxruntime, open_session

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeCpu:
    """Implements `Executor` on the CPU. Sessions are made when a component first runs, or by `load`."""

    name = "onnxruntime (cpu)"

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        self._bundle = bundle
        self._threads = threads
        self._ort = import_onnxruntime()
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._held: dict[str, HeldFiles] = {}
        self._kept = KeptOnHost(bundle)
        self._workspaces = LastWorkspace(weakly(self._workspace))

    def keep(self, values: KeptValues) -> None:
        self._kept.write(values)

    def perform(
        self, shape: RequestShape, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Performed:
        workspace = self._workspaces.of(shape)
        for name, array in inputs.items():
            workspace[name][...] = array
        milliseconds = run_in_turn(stages, workspace)
        return Performed(outputs={name: workspace[name].copy() for name in outputs}, milliseconds=milliseconds)

    def _workspace(self, shape: RequestShape) -> HostWorkspace:
        try:
            return HostWorkspace(shape, request_tensors(self._bundle, shape), weakly(self._compute))
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
        session = open_session(self._bundle, component, providers, threads=self._threads)
        self._held[component] = self._bundle.hold(component)
        self._sessions[component] = session

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
            session.run_with_iobinding(binding)
        except Exception as error:
            raise failed(component, {name: array.shape for name, array in inputs.items()}, error) from error

    def close(self) -> None:
        self._sessions.clear()
        for held in self._held.values():
            held.close()
        self._held.clear()
        self._workspaces.clear()

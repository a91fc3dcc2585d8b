"""Components run by ONNX Runtime, on the CPU or a CUDA device. Tensors stay on the device between components."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle import Bundle
from ..engine.components import COMPONENTS, Precision
from ..engine.errors import ExecutorError, MissingDependencyError
from ..engine.gpus import find_gpus

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

ITEM_BYTES = {
    1: 4,
    2: 1,
    6: 4,
    7: 8,
    10: 2,
    16: 2,
}  # onnx.TensorProto types: float, uint8, int32, int64, half, bfloat16


class Device(str, Enum):
    """Where ONNX Runtime computes. AUTO takes a CUDA device if the installed ONNX Runtime has one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeOptions:
    """`threads` for the CPU, 0 for one a core. `device_id` counts CUDA devices."""

    device: Device = Device.AUTO
    device_id: int = 0
    threads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtTensor:
    """Memory that ONNX Runtime can bind. `owner` is what keeps it alive."""

    address: int
    shape: tuple[int, ...]
    onnx_type: int
    owner: onnxruntime.OrtValue

    @classmethod
    def of(cls, value: onnxruntime.OrtValue) -> OrtTensor:
        return cls(address=value.data_ptr(), shape=tuple(value.shape()), onnx_type=value.element_type(), owner=value)

    def row(self, index: int) -> OrtTensor:
        row_bytes = prod(self.shape[1:]) * ITEM_BYTES[self.onnx_type]
        return replace(self, address=self.address + index * row_bytes, shape=self.shape[1:])


class OnnxRuntimeExecutor:
    """See `Executor`. Sessions are made when a component first runs, or by `load`."""

    def __init__(self, bundle: Bundle, options: OnnxRuntimeOptions | None = None) -> None:
        options = options or OnnxRuntimeOptions()
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError(
                "ONNX Runtime is not installed; install one of: pip install onnxruntime (CPU), "
                "pip install onnxruntime-gpu (CUDA)"
            ) from error
        self._ort = onnxruntime
        self._bundle = bundle
        self._options = options
        self._device = self._choose_device(Device(options.device))
        self._device_id = options.device_id if self._device is Device.CUDA else 0
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.name = f"onnxruntime ({self._device.value})"

    def _choose_device(self, wanted: Device) -> Device:
        has_cuda = "CUDAExecutionProvider" in self._ort.get_available_providers()
        if wanted is Device.CUDA and not has_cuda:
            raise ExecutorError("the installed ONNX Runtime has no CUDA support; pip install onnxruntime-gpu instead")
        if wanted is Device.AUTO:
            return Device.CUDA if has_cuda and find_gpus()[0] else Device.CPU
        return wanted

    def load(self, component: str) -> None:
        if component in self._sessions:
            return
        record = self._bundle.graph(component)
        if self._device is Device.CPU and record.precision is Precision.BF16:
            raise ExecutorError(
                f"{component} is in bf16, for which ONNX Runtime has no CPU kernels; export the checkpoint with "
                "--precision fp32 to run it on this machine"
            )
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._options.threads
        if record.quantization is not None:
            # its rewriting of quantized products knows no FP8: it leaves operators that no provider has
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        providers: list[Any] = ["CPUExecutionProvider"]
        if self._device is Device.CUDA:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": str(self._device_id)}))
        path = self._bundle.graph_path(component)
        try:
            # Without folding, `x @ Transpose(W)` fuses to one product over the mapped weights; with it, ONNX Runtime
            # first writes a transposed copy of every weight. What is worth folding was folded at export.
            session = self._ort.InferenceSession(
                path, options, providers=providers, disabled_optimizers=["ConstantFolding"]
            )
        except Exception as error:  # ONNX Runtime has an exception type a status code
            raise ExecutorError(f"ONNX Runtime cannot load {component} ({path}): {error}") from error
        if self._device is Device.CUDA and "CUDAExecutionProvider" not in session.get_providers():
            raise ExecutorError(f"ONNX Runtime could not use the CUDA device for {component}; see its log above")
        self._sessions[component] = session

    def run(self, component: str, inputs: Mapping[str, OrtTensor | NDArray[Any]]) -> dict[str, OrtTensor]:
        self.load(component)
        session = self._sessions[component]
        binding = session.io_binding()
        held: list[OrtTensor] = []  # host arrays live as long as the run
        for name, given in inputs.items():
            tensor = given if isinstance(given, OrtTensor) else self._from_host(given)
            held.append(tensor)
            if prod(tensor.shape):
                binding.bind_input(
                    name, self._device.value, self._device_id, tensor.onnx_type, list(tensor.shape), tensor.address
                )
            else:
                binding.bind_ortvalue_input(name, tensor.owner)  # no memory, so no address
        for port in COMPONENTS[component].outputs:
            binding.bind_output(port.name, self._device.value, self._device_id)
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise ExecutorError(f"{component} failed in ONNX Runtime for {shapes}: {error}") from error
        names = (port.name for port in COMPONENTS[component].outputs)
        return {name: OrtTensor.of(value) for name, value in zip(names, binding.get_outputs(), strict=True)}

    def _from_host(self, array: NDArray[Any]) -> OrtTensor:
        contiguous = np.ascontiguousarray(array)
        return OrtTensor.of(self._ort.OrtValue.ortvalue_from_numpy(contiguous, self._device.value, self._device_id))

    def row(self, value: OrtTensor, index: int) -> OrtTensor:
        return value.row(index)

    def fetch(self, value: OrtTensor) -> NDArray[Any]:
        assert value.address == value.owner.data_ptr(), "a row is not fetched"
        return np.array(value.owner.numpy())

    def close(self) -> None:
        self._sessions.clear()

"""Implements engines by ONNX Runtime's CUDA provider: on our stream, in our buffers, activations in its own arena."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ...engine.bundle.bundle import Bundle
from ...engine.components import KNOWN_COMPONENTS, Component, Precision, Runs
from ...engine.errors import ExecutorError, GpuMemoryError, KontextError
from ..device.cuda import Cuda, Handle
from ..device.engine import Shapes
from ..device.memory import DeviceBlock, DeviceTensor
from ..flow.group import Group
from ..flow.tensors import RequestShape, TensorSpec, usual_shape
from ..operators.failures import raising_whole
from ..operators.fused import FusedOperators
from .fused_kernels import has_kernels
from .onnxruntime_arena import SESSION_OPTIONS, Emptier, arena_users, reserve_arena, share_arena
from .onnxruntime_costs import costs
from .onnxruntime_session import SILENT, device_option, failed, import_onnxruntime, open_session
from .shared_graph import own_text

if TYPE_CHECKING:
    import onnxruntime

_CUDA_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")
"""The CUDA runtimes that ONNX Runtime is linked to; cuda-python has one of its own."""
_NO_MEMORY = ("Failed to allocate memory", "CUDA_ERROR_OUT_OF_MEMORY", "out of memory", "Available memory of")


class OnnxRuntimeEngines:
    """Implements `Engines` by ONNX Runtime's CUDA provider.

    Args:
        bundle: The bundle whose graphs they run.
        cuda: The device.
        kernels_for: The architecture that kernels of fused operators are compiled for; None to run their bodies.
        without_kernels: The fused operators whose bodies run all the same.

    Attributes:
        group: The ranks that share the tokens of a request, set before a component is opened; None for a device alone.
    """

    allocates = True

    def __init__(
        self,
        bundle: Bundle,
        cuda: Cuda,
        kernels_for: str | None = None,
        *,
        without_kernels: AbstractSet[str] = frozenset(),
    ) -> None:
        self._bundle, self._cuda, self._kernels_for = bundle, cuda, kernels_for
        self._without_kernels = without_kernels
        self.group: Group | None = None
        self._ort = import_onnxruntime()
        self._fused: FusedOperators | None = None
        self._reserved = False
        self._emptier: Emptier | None = None
        self._users = arena_users(cuda.device)

    @property
    def turn(self) -> AbstractContextManager[object]:
        return self._users.turn

    def before_shrinking(self, forget: Callable[[], None]) -> None:
        self._users.add(forget)

    @property
    def name(self) -> str:
        return "onnxruntime"

    def check(self, shape: RequestShape) -> None:
        """Accept every request: sessions take any shape."""

    def open(self, component: str, stream: Handle, streaming_budget: int | None) -> OnnxRuntimeEngine:
        assert streaming_budget is None, "ONNX Runtime does not stream weights"
        self._check_quantized(component)
        provider = {
            "user_compute_stream": str(self._cuda.stream_address(stream)),
            "arena_extend_strategy": "kSameAsRequested",  # the default doubles what it takes
            "cudnn_conv_algo_search": "HEURISTIC",  # the default times every algorithm at each new shape
            **device_option(self._cuda.device),
        }
        if self._bundle.graph(component).precision is Precision.FP32:
            provider["use_tf32"] = "0"  # elsewhere it would also keep convolutions from the tensor cores
        with _memory_told():
            providers = [("CUDAExecutionProvider", provider), "CPUExecutionProvider"]
            fused = self._kernels(component, stream)
            self._share_arena()
            own = own_text(self._bundle, component, self.group)
            session = open_session(
                self._bundle,
                component,
                providers,
                memory_patterns=False,
                entries=SESSION_OPTIONS,
                kernels=None if fused is None else partial(fused.opening, shared=own is not None),
                own_text=own,
            )
        if "CUDAExecutionProvider" not in session.get_providers():
            raise ExecutorError(
                f"ONNX Runtime could not use the CUDA device for {component}: its CUDA libraries or the driver do not "
                "fit; kontext-trt doctor says what is there"
            )
        table = self._bundle.component(component)
        engine = OnnxRuntimeEngine(table, session, self._ort, self._cuda.device, fused=fused is not None)
        if fused is not None and table.runs in (Runs.REFERENCE, Runs.PICTURE):
            self._reserve()
            self._prepare(table, engine, stream)
        return engine

    def _share_arena(self) -> None:
        """Make the arena, if the process has none, and what empties it."""
        share_arena(self._cuda.device)
        if self._emptier is None:
            try:
                self._emptier = Emptier(self._cuda.device)
            except Exception as error:  # ONNX Runtime's own, of several types
                raise ExecutorError(f"ONNX Runtime cannot use the CUDA device: {error}") from error

    def _check_quantized(self, component: str) -> None:
        """Raise ExecutorError for FP8 that the provider has no kernels for: it dequantizes nothing to bfloat16."""
        record = self._bundle.graph(component)
        by_kernels = self._kernels_for is not None and has_kernels(self._bundle, component)
        if record.quantization is not None and record.precision is Precision.BF16 and not by_kernels:
            raise ExecutorError(
                f"{component} is quantized ({record.quantization.recipe}), for which ONNX Runtime has no kernels on "
                "CUDA in bf16; export the checkpoint with --operators fused and quantize that, or build plans"
            )

    def _reserve(self) -> None:
        """Give the arena one piece as large as any component with kernels needs it for the usual size."""
        if not self._reserved:
            needs = costs(self._bundle, usual_shape(self._bundle))
            size = max(need.activations for name, need in needs.items() if has_kernels(self._bundle, name))
            with _memory_told():
                try:
                    reserve_arena(self._cuda.device, size)
                except Exception as error:  # ONNX Runtime's own, of several types
                    raise ExecutorError(f"ONNX Runtime's arena cannot grow: {error}") from error
            self._reserved = True

    def _prepare(self, component: Component, engine: OnnxRuntimeEngine, stream: Handle) -> None:
        """Run a component once for the usual size, on whatever lies in memory: its kernels are compiled and chosen."""
        shape, dims = usual_shape(self._bundle), self._bundle.manifest.model.dims
        precision, (rows, columns) = self._bundle.graph(component).precision, shape.grid
        sizes = {"b": 1, "h": rows, "w": columns, "m": rows * columns}
        specs = {
            port.name: TensorSpec(
                shape=tuple(int(extent) for extent in dims.resolve(port.dims, **sizes)),
                element_type=port.element_type.resolve(precision),
            )
            for port in component.ports
        }
        block = DeviceBlock(self._cuda, specs)
        try:
            engine.enqueue(block.tensors)
        finally:
            self._cuda.synchronize(stream)
            block.close()

    def _kernels(self, component: str, stream: Handle) -> FusedOperators | None:
        """Return the kernels of a component's fused operators, made for the first that has some."""
        if self._kernels_for is None or not has_kernels(self._bundle, component):
            if self.group is not None and KNOWN_COMPONENTS[component].runs is Runs.STEP:
                raise ExecutorError(
                    f"{component} has no kernels here, and nothing else computes a request on several GPUs; export the "
                    "checkpoint with --operators fused in bf16, or compute each request on one GPU"
                )
            return None
        if self._fused is None:
            self._fused = FusedOperators(
                self._cuda, stream, self._kernels_for, without=self._without_kernels, group=self.group
            )
        dims = self._bundle.manifest.model.dims
        names = {node.op_type for node in self._bundle.read_graph(component).proto.graph.node}
        self._fused.compile(names, dims.hidden, 2 * dims.rope_width)
        return self._fused

    def forget_failure(self) -> None:
        """Forget the last error of the CUDA runtimes that ONNX Runtime is linked to.

        Its kernels ask for the last error after each launch, and would take an old one for their own.
        """
        for name in _CUDA_RUNTIMES:
            with suppress(OSError):
                ctypes.CDLL(name, mode=os.RTLD_NOLOAD).cudaGetLastError()

    def shrink(self) -> None:
        """Empty the arena that sessions share, and free what kernels share."""
        if self._fused is not None:
            self._fused.shrink()
        self._empty()

    def _empty(self) -> None:
        if self._emptier is not None:
            self._emptier()
            self._reserved = False

    def close(self) -> None:
        """Free what the arena and the kernels hold; engines are closed one by one."""
        self._empty()
        self._emptier = None
        if self._fused is not None:
            self._fused.close()
            self._fused = None
        if self.group is not None:
            self.group.close()
            self.group = None


class OnnxRuntimeEngine:
    """Implements `Engine` by a session, which takes inputs of any shape: what is bound of it runs the same session.

    `fused` says that it has kernels of fused operators.
    """

    def __init__(
        self, component: Component, session: onnxruntime.InferenceSession, ort: Any, device: int, *, fused: bool
    ) -> None:
        self._fused = fused
        self._component, self._session, self._ort, self._device = component, session, ort, device
        self.capturable = component.onnxruntime.recordable
        self._options = ort.RunOptions()
        self._options.log_severity_level = SILENT
        # whoever reads an output waits for our stream
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def bind(self, shapes: Shapes) -> OnnxRuntimeBound:
        return OnnxRuntimeBound(self)

    def enqueue(self, tensors: Mapping[str, DeviceTensor]) -> None:
        binding = self._session.io_binding()
        for port in self._component.inputs:
            self._bind(binding.bind_input, port.name, tensors[port.name])
        for port in self._component.outputs:
            self._bind(binding.bind_output, port.name, tensors[port.name])
        with _memory_told():
            try:
                with raising_whole() if self._fused else nullcontext():
                    self._session.run_with_iobinding(binding, self._options)
            except KontextError:  # a kernel's own
                raise
            except Exception as error:
                shapes = {port.name: tensors[port.name].shape for port in self._component.inputs}
                raise failed(self._component.name, shapes, error) from error

    def _bind(self, bind: Any, name: str, tensor: DeviceTensor) -> None:
        onnx_type = tensor.spec.element_type.number.onnx_number
        bind(name, "cuda", self._device, onnx_type, list(tensor.shape), tensor.address)

    def close(self) -> None:
        del self._session


class OnnxRuntimeBound:
    """Implements `Bound` by the engine itself, whose session takes inputs of any shape."""

    activation_bytes = 0

    def __init__(self, engine: OnnxRuntimeEngine) -> None:
        self._engine = engine

    def recordable(self, stream: Handle) -> bool:
        return True

    def place(self, arena: tuple[int, int]) -> None:
        """Do nothing: a session has activations of its own."""

    def enqueue(self, tensors: Mapping[str, DeviceTensor], stream: Handle) -> None:
        self._engine.enqueue(tensors)

    def close(self) -> None:
        """Do nothing: it holds nothing of its own."""


@contextmanager
def _memory_told() -> Iterator[None]:
    """Raise GpuMemoryError for an ExecutorError that speaks of memory, in the words of the library or the driver."""
    try:
        yield
    except GpuMemoryError:
        raise
    except ExecutorError as error:
        if any(words in str(error) for words in _NO_MEMORY):
            raise GpuMemoryError(str(error)) from error
        raise

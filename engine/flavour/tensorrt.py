"""Implements the flavour of TensorRT 10.12 to 11.x, which builds and times kernels on the GPU that the plan is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorrt

from ..bundle.shared_file import SharedFile
from .attention import mark_decomposable


class TensorRtContexts:
    """Implements `ContextMaker`: TensorRT's kernels are finished when it is built."""

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    def create(self, engine: Any) -> Any:
        return engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def recordable(self, context: Any, stream: int) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to keep."""


class TensorRt:
    """Implements `Flavour` for TensorRT."""

    name = "tensorrt"
    ahead_of_time = False
    times_tactics = True
    needs_driver: tuple[str, ...] = ()  # a machine without one cannot build at all
    capabilities = None

    def __init__(self) -> None:
        self.trt: Any = tensorrt
        self.version: str = self.trt.__version__

    @property
    def weights_by_pointer(self) -> bool:
        return hasattr(self.trt.OnnxParser, "load_initializer")  # since 10.13

    @property
    def streams_plans(self) -> bool:
        return hasattr(self.trt.Builder, "build_serialized_network_to_stream")  # in 10.13; unknown before

    @property
    def stream_writer(self) -> type:
        return self.trt.IStreamWriter if self.streams_plans else object

    def serialize(self, builder: Any, network: Any, config: Any, writer: Any) -> bool:
        if self.streams_plans:
            return builder.build_serialized_network_to_stream(network, config, writer)
        plan = builder.build_serialized_network(network, config)
        return plan is not None and writer.write(memoryview(plan)) == plan.nbytes

    def set_capability(self, config: Any, capability: str) -> None:
        """Set nothing: it compiles for the GPU that it runs on."""

    def make_recordable(self, config: Any) -> None:
        """Do nothing: TensorRT's plans take their memory from the caller's context."""

    def allow_decomposed_attention(self, network: Any) -> int:
        return mark_decomposable(self.trt, network)

    def refusal(self, plan: memoryview) -> str:
        return ""  # it only tells by trying

    def contexts(self, cache: SharedFile) -> TensorRtContexts:
        return TensorRtContexts(self.trt)

    def compatibility_flags(self) -> Mapping[str, Any]:
        levels = self.trt.HardwareCompatibilityLevel
        return {"same_capability": levels.SAME_COMPUTE_CAPABILITY, "ampere_plus": levels.AMPERE_PLUS}

"""Implements the flavour of TensorRT-RTX 1.7.

It compiles ahead of time, for a list of GPU generations, and finishes on the GPU at first run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import tensorrt_rtx

from ..bundle.shared_file import SharedFile
from ..errors import BuildError, ExecutorError, KontextError
from .attention import mark_decomposable
from .start import start

logger = logging.getLogger(__name__)


class TensorRtRtxContexts:
    """Implements `ContextMaker`.

    Kernels are finished for the shapes in use before they run, not behind their back, and graphs are recorded by us,
    not by the library.
    """

    def __init__(self, trt: Any, kept: SharedFile) -> None:
        self._trt, self._kept = trt, kept
        self._cache: Any = None

    def create(self, engine: Any) -> Any:
        trt, settings = self._trt, engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        settings.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        settings.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if self._cache is None:
            self._cache = settings.create_runtime_cache()
            kernels = self._kept.read()
            if kernels and not self._cache.deserialize(kernels):
                logger.warning(
                    "the runtime cache %s is of another GPU or library; kernels are made anew", self._kept.path
                )
        settings.set_runtime_cache(self._cache)
        return engine.create_execution_context(settings)

    def recordable(self, context: Any, stream: int) -> bool:
        return context.is_stream_capturable(stream)

    def close(self) -> None:
        if self._cache is not None:
            serialized = self._cache.serialize()  # holds what was read, too
            self._cache = None
            if serialized is None:
                logger.warning("the library gave no kernels to keep; %s stays as it is", self._kept.path)
                return
            kernels = bytes(serialized)
            try:
                self._kept.update(lambda _: kernels)
            except (KontextError, OSError) as error:  # costs the next start time, not this one its result
                logger.warning("the runtime cache %s could not be kept: %s", self._kept.path, error)


class TensorRtRtx:
    """Implements `Flavour` for TensorRT-RTX."""

    name = "tensorrt_rtx"
    ahead_of_time = True
    times_tactics = False
    needs_driver: tuple[str, ...] = ("refit", "strip")  # both finish kernels on the device
    weights_by_pointer = True

    def __init__(self) -> None:
        self.trt: Any = tensorrt_rtx
        self.version: str = self.trt.__version__

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that the ComputeCapability enumeration names."""
        found = (re.fullmatch(r"SM(\d+)", name) for name in self.trt.ComputeCapability.__members__)
        return tuple(f"sm_{match[1]}" for match in found if match)

    @property
    def stream_writer(self) -> type:
        return self.trt.IStreamWriter

    def serialize(self, builder: Any, network: Any, config: Any, writer: Any) -> bool:
        return builder.build_serialized_network_to_stream(network, config, writer)

    def set_capability(self, config: Any, capability: str) -> None:
        if capability == "portable":
            return  # none set: 8.0, 8.6, 8.9, 12.0 and later
        config.num_compute_capabilities = 1
        member = getattr(self.trt.ComputeCapability, capability.replace("sm_", "SM"))
        if not config.set_compute_capability(member, 0):
            raise BuildError(f"TensorRT-RTX {self.version} did not accept {capability}, which it lists")

    def make_recordable(self, config: Any) -> None:
        config.set_flag(self.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    def allow_decomposed_attention(self, network: Any) -> int:
        return mark_decomposable(self.trt, network)

    def refusal(self, plan: memoryview) -> str:
        trt = self.trt
        quiet = trt.Logger.INTERNAL_ERROR
        runtime = start(self.name, lambda: trt.Runtime(trt.Logger(quiet)), tuple, ExecutorError)
        validity, found = runtime.get_engine_validity(plan)
        if validity != trt.EngineValidity.INVALID:
            return ""
        reasons = [name for name, flag in trt.EngineInvalidityDiagnostics.__members__.items() if found & int(flag)]
        return ", ".join(reasons).lower().replace("_", " ") or "it says no more, as it does where there is no GPU"

    def contexts(self, cache: SharedFile) -> TensorRtRtxContexts:
        return TensorRtRtxContexts(self.trt, cache)

    def compatibility_flags(self) -> Mapping[str, Any]:
        return {}

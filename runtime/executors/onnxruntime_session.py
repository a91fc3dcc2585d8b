"""Opens sessions of ONNX Runtime, one per component, on the CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...engine.bundle.bundle import Bundle
from ...engine.errors import ExecutorError, MissingDependencyError

if TYPE_CHECKING:
    import onnxruntime


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, or raise MissingDependencyError with the commands that install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "ONNX Runtime is not installed; install one of: pip install 'kontext-trt[cpu]', "
            "pip install 'kontext-trt[gpu]' (CUDA)"
        ) from error
    return onnxruntime


def has_cuda() -> bool:
    """Return whether the installed ONNX Runtime was built for CUDA; there may be no GPU all the same."""
    return "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


def open_session(
    bundle: Bundle, component: str, providers: Sequence[Any], *, threads: int = 0, memory_patterns: bool = True
) -> onnxruntime.InferenceSession:
    """Open a session of a component's graph.

    `memory_patterns` has the second run of a shape take all its memory anew, in one block.

    Raises ExecutorError, naming component and graph.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = memory_patterns
    if bundle.graph(component).quantization is not None:
        # its rewriting of quantized products knows no FP8: it leaves operators that no provider has
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    path = bundle.graph_path(component)
    try:
        # Without folding, `x @ Transpose(W)` fuses to one product over the mapped weights; with it, ONNX Runtime
        # first writes a transposed copy of every weight. What is worth folding was folded at export.
        return ort.InferenceSession(path, options, providers=list(providers), disabled_optimizers=["ConstantFolding"])
    except Exception as error:  # ONNX Runtime has an exception type per status code
        raise ExecutorError(f"ONNX Runtime cannot load {component} ({path}): {error}") from error


def failed(component: str, shapes: Mapping[str, Sequence[int]], error: Exception) -> ExecutorError:
    """Return the error that a failed run is raised as."""
    words = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return ExecutorError(f"{component} failed in ONNX Runtime for {words}: {error}")

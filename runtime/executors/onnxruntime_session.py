"""Opens sessions of ONNX Runtime, one per component, on the CPU or a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...engine.bundle.bundle import Bundle
from ...engine.errors import BundleError, ExecutorError, MissingDependencyError
from ...engine.number_types import NUMBER_TYPES
from .ports import PortType, disagreements, fixed, wanted_ports
from .shared_graph import shared_graph, shared_port

if TYPE_CHECKING:
    import onnxruntime

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""The environment variable that keeps ONNX Runtime from sending anything; it is read when the library is loaded."""
SILENT = 4
"""The level of ONNX Runtime's log that prints nothing but what ends the process."""
_TYPES = {f"tensor({number.onnx.lower()})": number.name for number in NUMBER_TYPES.values()}


_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""The option that names the folder of the weights of a graph that is not read from a file."""


Kernels = Callable[[Any], AbstractContextManager[None]]
"""A function that gives the session that is made within its context, with these options, kernels of fused operators."""


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, or raise MissingDependencyError with the commands that install it.

    Its builds for Linux, 1.31 and 1.32 at least, send events to Microsoft unless the environment says otherwise before
    they are loaded. Here it does, if it says nothing: what users compute is their own business.
    """
    os.environ.setdefault(NO_TELEMETRY, "1")
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


def device_option(device: int) -> dict[str, str]:
    """Return the option that tells the CUDA provider its device.

    From 1.26 on, every session that is told its device warns that no plugin has it; 0 is the default.
    """
    return {"device_id": str(device)} if device else {}


def open_session(
    bundle: Bundle,
    component: str,
    providers: Sequence[Any],
    *,
    threads: int = 0,
    memory_patterns: bool = True,
    entries: Mapping[str, str] = MappingProxyType({}),
    kernels: Kernels | None = None,
    own_text: int | None = None,
) -> onnxruntime.InferenceSession:
    """Open a session of a component's graph, whose inputs and outputs are what the bundle's manifest says.

    `memory_patterns` has the second run of a shape take all its memory anew, in one block. `entries` are
    further options of the session. Fused operators run `kernels`; without, their bodies. `own_text` is how many text
    tokens a denoiser takes that shares requests with others.

    Raises ExecutorError, naming component and graph, or BundleError for a graph that is not as its manifest says.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = SILENT  # what it would print, with names from the graph, is in what it raises
    options.intra_op_num_threads = threads
    options.enable_mem_pattern = memory_patterns
    if bundle.graph(component).quantization is not None:
        # its rewriting of quantized products knows no FP8: it leaves operators that no provider has
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    graph, model = bundle.open_graph(component), ""
    path, wanted = graph.path, wanted_ports(bundle, component)
    if own_text is not None:
        model = shared_graph(graph, bundle.manifest.model.dims.text_length, own_text)
        wanted = {name: shared_port(name, port, own_text) for name, port in wanted.items()}
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent))
    try:
        # Without folding, `x @ Transpose(W)` fuses to one product over the mapped weights; with it, ONNX Runtime
        # first writes a transposed copy of every weight. What is worth folding was folded at export.
        with nullcontext() if kernels is None else kernels(options):
            session = ort.InferenceSession(
                model or path,
                options,
                providers=list(providers),
                disabled_optimizers=["ConstantFolding"],
                enable_fallback=0,  # else it prints an error on standard output, and tries again on the CPU
            )
    except Exception as error:  # ONNX Runtime has an exception type per status code
        raise ExecutorError(f"ONNX Runtime cannot load {component} ({path}): {error}") from error
    problems = list(disagreements(wanted, _ports(session)))
    if problems:
        raise BundleError(f"{path} is not as its manifest says: {'; '.join(problems)}; do not use this bundle")
    return session


def _own_name(onnx_type: str) -> str:
    return _TYPES.get(onnx_type, onnx_type)


def _ports(session: onnxruntime.InferenceSession) -> dict[str, PortType]:
    """Return a session's inputs and outputs: ONNX Runtime writes a type as "tensor(float16)"."""
    return {
        port.name: PortType(
            output=output, element_type=_TYPES.get(str(port.type), str(port.type)), shape=fixed(port.shape)
        )
        for output, ports in ((False, session.get_inputs()), (True, session.get_outputs()))
        for port in ports
    }


def failed(component: str, shapes: Mapping[str, Sequence[int]], error: Exception) -> ExecutorError:
    """Return the error that a failed run is raised as."""
    words = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return ExecutorError(f"{component} failed in ONNX Runtime for {words}: {error}")

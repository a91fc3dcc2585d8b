"""Says whether anything on this machine runs a bundle of certain number types, before there is one."""

from __future__ import annotations

from collections.abc import Iterable

from ...engine.errors import MissingDependencyError, TargetError
from ...engine.flavour import installed_flavours
from ...engine.plans.targets import capability_of, check_formats
from ...engine.system.gpus import find_gpus
from .onnxruntime_session import has_cuda

CPU_LACKS = {
    "bf16": "ONNX Runtime has no bf16 kernels on the CPU",
    "nvfp4": "NVFP4 is run by plans of TensorRT and TensorRT-RTX alone",
}
"""The reason that ONNX Runtime does not compute in a number type on the CPU."""


def why_not_here(formats: Iterable[str]) -> str:
    """Return why no executor of this machine runs what computes in number types ("bf16", "fp8"), "" if one does.

    The message ends with what to do. Whether there is memory enough, and whether plans were built, is not looked at.
    """
    wanted = set(formats)
    gpus, no_gpu = find_gpus()
    plans = bool(gpus and installed_flavours())
    try:
        on_gpu = plans or (has_cuda() and bool(gpus))
    except MissingDependencyError as error:
        return f"nothing that runs bundles is installed: {error}"
    if on_gpu:
        try:
            check_formats(capability_of(gpus[0]), sorted(wanted))
        except TargetError as error:
            return f"{gpus[0].name}: {error}"
        return ""
    lacking = sorted(wanted & CPU_LACKS.keys())
    if not lacking:
        return ""
    reasons = "; ".join(CPU_LACKS[one] for one in lacking)
    if gpus:
        return (
            f"{reasons}, and the installed ONNX Runtime was not built for CUDA. For {gpus[0].name}: pip uninstall "
            f"onnxruntime && pip install 'kontext-trt[gpu]'. For the CPU: {_for_the_cpu(wanted)}"
        )
    return f"{reasons}, and there is no GPU ({no_gpu}). For this machine {_for_the_cpu(wanted)}"


def _for_the_cpu(formats: set[str]) -> str:
    """Return what makes a bundle that the CPU runs: the quantized ones in FP8 are made of one in fp32."""
    if "fp8" in formats and "nvfp4" not in formats:
        return "export with --precision fp32, and quantize what comes of it with kontext-trt quantize"
    return "export with --precision fp32"

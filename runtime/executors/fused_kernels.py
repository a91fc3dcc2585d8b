"""Says whether a bundle's fused operators can run their kernels on a GPU, and what is missing otherwise."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator

from ...engine.bundle.bundle import Bundle
from ...engine.components import Operators, Precision
from ...engine.system.gpus import Gpu
from ..operators.catalogue import VERSION
from ..operators.functions import foreign_functions, formats_of, version_of

logger = logging.getLogger(__name__)

PACKAGES = {"nvmath": "nvmath-python", "cudnn": "nvidia-cudnn-frontend"}
"""The modules that kernels need beside ONNX Runtime and cuda-python, and the packages that have them."""
BF16, FP8, FP8_ATTENTION = (8, 0), (8, 9), (9, 0)
"""The compute capabilities from which on there are kernels in bf16, for FP8 products, and for attention in FP8."""


def has_kernels(bundle: Bundle, component: str) -> bool:
    """Return whether a component's graph has fused operators, of the type that there are kernels for."""
    record = bundle.graph(component)
    return record.operators == Operators.FUSED.value and record.precision is Precision.BF16


def fused_components(bundle: Bundle) -> list[str]:
    """Return the components whose graphs have fused operators."""
    return [name for name in bundle.components if bundle.graph(name).operators == Operators.FUSED.value]


def fused_architecture(bundle: Bundle, gpu: Gpu) -> str | None:
    """Return what kernels are compiled for ("sm_90"); None if there are no fused operators, or their bodies must run.

    What runs without kernels is warned about, with the reason.
    """
    components: list[str] = []
    for name in fused_components(bundle):
        if has_kernels(bundle, name):
            components.append(name)
        else:
            _warn(_other_type(bundle, name))
    if not components:
        return None
    reasons = list(obstacles(bundle, components, gpu))
    if reasons:
        _warn("; ".join(reasons))
        return None
    return f"sm_{gpu.major}{gpu.minor}"


def _warn(reason: str) -> None:
    logger.warning("fused operators run without their kernels, which is slower and takes more memory: %s", reason)


def obstacles(bundle: Bundle, components: list[str], gpu: Gpu) -> Iterator[str]:
    """Say in words each thing that keeps components from running kernels."""
    missing = sorted(package for module, package in PACKAGES.items() if not _is_there(module))
    if missing:
        yield f"{', '.join(missing)} not installed (pip install 'kontext-trt[fused]')"
    capability = (gpu.major, gpu.minor)
    for name in components:
        if not has_kernels(bundle, name):
            yield _other_type(bundle, name)
            continue
        data = bundle.read_graph(name).data
        foreign = foreign_functions(data, Precision.BF16)
        if foreign:
            yield _others(name, foreign, version_of(data))
        formats = formats_of(data)
        needed = (
            (BF16, True, "bf16"),
            (FP8, any(form.has_fp8 for form in formats), "FP8 products"),
            (FP8_ATTENTION, any(form.attention for form in formats), "FP8 attention"),
        )
        for least, wanted, what in needed:
            if wanted and capability < least:
                yield (
                    f"{gpu.name} has compute capability {gpu.major}.{gpu.minor}, and {what} of {name} needs "
                    f"{least[0]}.{least[1]}"
                )


def _others(component: str, functions: list[str], version: int | None) -> str:
    named = ", ".join(functions[:3])
    if version not in (None, VERSION):
        return (
            f"{component} has version {version} of the operators {named}, and this is version {VERSION}: export the "
            "checkpoint again"
        )
    return f"{component} has functions that are not this project's: {named}"


def _other_type(bundle: Bundle, component: str) -> str:
    return f"{component} is in {bundle.graph(component).precision.value}, and there are kernels for bf16 and FP8 alone"


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False

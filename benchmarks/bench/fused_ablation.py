"""Says what the kernels of fused operators are, by families that are switched off together, and predicts their worth.

Switched off, a family runs its bodies: standard operators, each of which reads and writes all of its tensors. The
prediction is these bytes beyond the fused operators' own, and FP8 products at the rate of what they are dequantized
to. A runtime that fuses some of the operators needs less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER
from ...engine.system.gpus import find_gpus
from ...runtime.device.executor import DeviceExecutor
from ...runtime.executors.fused_kernels import fused_components, obstacles
from ...runtime.flow.executor import Executor
from ...runtime.operators.catalogue import DEFINITIONS, WEIGHT_ONLY
from ...runtime.operators.picture_operators import PICTURE_OPERATORS
from .bodies import fused_names
from .graph_work import count_bodies
from .records import Case, Ceilings
from .roofline import dynamic_extents

FAMILIES: Mapping[str, frozenset[str]] = {
    "kernels: norm, modulation, gate": frozenset({"Modulate", "Gate", "GateModulate"}),
    "kernels: heads": frozenset({"Heads", "JointHeads"}),
    "kernels: products with bias, GELU, FP8": frozenset({"Linear", "LinearGelu", "JointLinear", WEIGHT_ONLY}),
    "kernels: rounding to FP8": frozenset({"Quantize"}),
    "kernels: attention": frozenset({"Attend", "AttendBesideGelu"}),
    "kernels: pictures": frozenset(operator.name for operator in PICTURE_OPERATORS),
}
"""The fused operators of the catalogue by what switches off together."""
ONNXRUNTIME = "onnxruntime"


def families_of(bundle: Bundle) -> dict[str, AbstractSet[str]]:
    """Return the families of which a bundle's denoiser has operators."""
    used = {DEFINITIONS[name].operator.name for name in fused_names(bundle.open_graph(DENOISER))}
    return {family: names for family, names in FAMILIES.items() if names & used}


def without_kernels(bundle: Bundle, executor: Executor, device_id: int) -> Iterator[str]:
    """Say in words each thing that keeps an executor from running the kernels of a bundle's fused operators."""
    components = fused_components(bundle)
    gpus, reason = find_gpus()
    if not isinstance(executor, DeviceExecutor) or not executor.name.startswith(ONNXRUNTIME):
        yield f"{executor.name} runs the bodies of fused operators"
    elif device_id >= len(gpus):
        yield reason or f"there is no GPU {device_id}"
    else:
        yield from obstacles(bundle, components, gpus[device_id])


def predicted_ms(bundle: Bundle, case: Case, names: AbstractSet[str], ceilings: Ceilings | None) -> float | None:
    """Return how much longer a step takes if these operators run their bodies; None without the rates for it.

    Raises:
        MissingDependencyError: The onnx package is not installed.
        BundleError: The graph cannot be counted.
    """
    if ceilings is None:
        return None
    graph, own = bundle.open_graph(DENOISER), bundle.graph(DENOISER).precision.value
    taken = {name for name in fused_names(graph) if DEFINITIONS[name].operator.name in names}
    work = count_bodies(graph, dynamic_extents(DENOISER.name, case, bundle.manifest.model), taken)
    seconds = work.more_bytes / ceilings.copy
    for one in work.heavy:
        rates = ceilings.attention if one.is_attention else ceilings.products
        if one.number_format != own:
            if not {own, one.number_format} <= rates.keys():
                return None
            seconds += one.operations * (1 / rates[own] - 1 / rates[one.number_format])
    return 1e3 * seconds

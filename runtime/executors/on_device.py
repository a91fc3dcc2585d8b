"""Says how executors use a device: what stays in its memory, and what they keep of requests."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from ...engine.bundle.bundle import Bundle
from ...engine.byte_sizes import human_bytes
from ...engine.components import KNOWN_COMPONENTS, Runs
from ...engine.plans.manifest import PlanManifest
from ..device.residency import Cost, ResidencyPlan, plan_residency
from ..flow.kept import kept_bytes
from ..flow.tensors import request_tensors, total_bytes, usual_shape
from .options import OnnxRuntimeOptions, TensorRtOptions

if TYPE_CHECKING:
    from ..device.cuda import Cuda
    from ..device.executor import DeviceOptions

logger = logging.getLogger(__name__)

GRAPH_BYTES = 256 << 20
"""The bytes set aside for the CUDA graphs of a request shape: 28 steps by ONNX Runtime took 206 MiB at full size."""


def onnxruntime_residency(
    bundle: Bundle, budget: int | None, cuda: Cuda, *, without: AbstractSet[Runs] = frozenset()
) -> ResidencyPlan:
    """Return what of a bundle that ONNX Runtime runs stays in a device's memory. Raises BudgetError.

    `without` says how often components run that this device never does.
    """
    from .onnxruntime_costs import costs

    reckoned = costs(bundle, usual_shape(bundle))
    kept = {name: cost for name, cost in reckoned.items() if KNOWN_COMPONENTS[name].runs not in without}
    return residency(bundle, kept, budget, cuda.memory()[0])


def plan_costs(bundle: Bundle, plans: Mapping[str, PlanManifest]) -> dict[str, Cost]:
    """Return what engines take, from what their compilers said of them."""
    return {
        name: Cost(
            weights=plan.size_bytes,
            activations=plan.census.activation_bytes,
            streamable=min(plan.build.weight_bytes, plan.size_bytes)
            if plan.ingredients.options.weight_streaming
            else 0,
            runs=KNOWN_COMPONENTS[name].runs_in(bundle.manifest.model.flow.steps),
            per_prompt=KNOWN_COMPONENTS[name].runs is Runs.PROMPT,
        )
        for name, plan in plans.items()
    }


def device_options(options: OnnxRuntimeOptions | TensorRtOptions) -> DeviceOptions:
    """Return how a device is used: with a budget, one request shape at a time keeps its buffers."""
    from ..device.executor import WORKSPACES_KEPT, DeviceOptions

    workspaces = WORKSPACES_KEPT if options.vram_bytes is None else 1
    return DeviceOptions(graphs=options.graphs, workspaces=workspaces)


def residency(bundle: Bundle, costs: Mapping[str, Cost], budget: int | None, free: int) -> ResidencyPlan:
    """Return what stays in a device's memory, of which `free` bytes are free. Raises BudgetError."""
    if budget is not None and budget > free:
        logger.warning("the budget is %s, but %s are free", human_bytes(budget), human_bytes(free))
    tensors = request_tensors(bundle, usual_shape(bundle))
    fixed = total_bytes(tensors) + kept_bytes(bundle) + GRAPH_BYTES
    plan = plan_residency(costs, fixed=fixed, budget=free if budget is None else budget)
    for line in plan.describe():
        logger.info("%s", line)
    return plan

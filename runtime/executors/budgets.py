"""Plans what of a bundle stays in the memory of a device that runs it, and how the device is used."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...engine.bundle.bundle import Bundle
from ...engine.byte_sizes import human_bytes
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


def onnxruntime_residency(bundle: Bundle, budget: int | None, cuda: Cuda) -> ResidencyPlan:
    """Return what of a bundle that ONNX Runtime runs stays in a device's memory. Raises BudgetError."""
    from .onnxruntime_cuda import costs

    return residency(bundle, costs(bundle, usual_shape(bundle)), budget, cuda.memory()[0])


def residency(bundle: Bundle, costs: Mapping[str, Cost], budget: int | None, free: int) -> ResidencyPlan:
    """Return what of a bundle stays in memory, of which `free` bytes are free, and warn of a budget beyond that.

    Raises BudgetError.
    """
    if budget is not None and budget > free:
        logger.warning("the budget is %s, but %s are free", human_bytes(budget), human_bytes(free))
    tensors = request_tensors(bundle, usual_shape(bundle))
    fixed = total_bytes(tensors) + kept_bytes(bundle) + GRAPH_BYTES
    plan = plan_residency(costs, fixed=fixed, budget=free if budget is None else budget)
    for line in plan.describe():
        logger.info("%s", line)
    return plan


def device_options(options: OnnxRuntimeOptions | TensorRtOptions) -> DeviceOptions:
    """Return how a device is used: with a budget, one request shape at a time keeps its buffers."""
    from ..device.executor import WORKSPACES_KEPT, DeviceOptions

    workspaces = WORKSPACES_KEPT if options.vram_bytes is None else 1
    return DeviceOptions(graphs=options.graphs, workspaces=workspaces)

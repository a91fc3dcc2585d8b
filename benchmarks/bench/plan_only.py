"""Predicts how much GPU memory a bundle will take from bytes that are known before anything runs.

For plans in the bundle: their sizes and activations as the compiler counted them. For ONNX Runtime: the graphs' weights
and the rule of thumb that its budgets are reckoned with. Narrower formats than the bundle's are predicted from the
weights of the products that a recipe would quantize; activations are left as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from ...engine.bundle.bundle import Bundle
from ...engine.byte_sizes import human_bytes
from ...engine.components import COMPONENTS, DENOISER
from ...engine.errors import BudgetError
from ...engine.plans.choice import outdated
from ...engine.plans.manifest import PlanManifest
from ...engine.plans.store import PlanStore
from ...export.graphs.recipes import RECIPES, Fp8, Recipe
from ...runtime.device.residency import (
    Cost,
    Residency,
    ResidencyPlan,
    everything_resident,
    least_budget,
    plan_residency,
)
from ...runtime.executors.on_device import GRAPH_BYTES
from ...runtime.executors.onnxruntime_costs import costs as onnxruntime_costs
from ...runtime.executors.open import plan_costs
from ...runtime.flow.kept import kept_bytes
from ...runtime.flow.stages import EncodeReference, EncodeText
from ...runtime.flow.tensors import request_tensors, total_bytes, usual_shape
from .engine_process import precision_of
from .graph_work import GraphWork
from .records import Case, Checked, EngineRun, MemoryCheck, Predicted, Prediction
from .roofline import work_of

logger = logging.getLogger(__name__)

ALL_RESIDENT, LEAST, ENCODERS_IN_TURNS = "all resident", "least budget", "encoders in turns"
ENCODERS = (*EncodeText.components, *EncodeReference.components)
NARROWER = ("fp8", "nvfp4")
ONNXRUNTIME = "onnxruntime"
_MIXED_SCALES_OPSET = 23


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """Describes an executor with graphs of a precision; `stored` is what of each cost's weights are weights indeed."""

    executor: str
    precision: str
    costs: Mapping[str, Cost]
    stored: Mapping[str, int]

    def narrowed(self, precision: str, saved: int) -> _Way:
        """Return the same with `saved` bytes less in the denoiser."""
        cost = self.costs[DENOISER.name]
        less = replace(cost, weights=cost.weights - saved, streamable=max(0, cost.streamable - saved))
        return replace(
            self,
            precision=precision,
            costs={**self.costs, DENOISER.name: less},
            stored={**self.stored, DENOISER.name: self.stored[DENOISER.name] - saved},
        )


def predict(bundle: Bundle, budget: int | None = None) -> Prediction:
    """Predict for one picture of the squarest trained size with a reference.

    There is a row for each executor, precision and residency. What quantizing would make of the bundle is predicted for
    its plans: ONNX Runtime has no kernels of its own on CUDA that round activations to fp8 or nvfp4. With a `budget` in
    bytes there is also the plan that would be run within it, where one fits.

    Raises:
        MissingDependencyError: There are plans, and the onnx package is not installed.
    """
    buffers = GRAPH_BYTES + total_bytes(request_tensors(bundle, usual_shape(bundle))) + kept_bytes(bundle)
    rows: list[Predicted] = []
    for way in _ways(bundle):
        plans = {
            ALL_RESIDENT: everything_resident(way.costs, fixed=buffers, budget=0),
            ENCODERS_IN_TURNS: everything_resident(way.costs, fixed=buffers, budget=0, but_for=ENCODERS),
            LEAST: plan_residency(way.costs, fixed=buffers, budget=least_budget(way.costs, fixed=buffers)),
        }
        if budget is not None:
            try:
                plans[within(budget)] = plan_residency(way.costs, fixed=buffers, budget=budget)
            except BudgetError as error:
                logger.warning("%s, %s: %s", way.executor, way.precision, error)
        rows += [_row(way, name, plan) for name, plan in plans.items()]
    return Prediction(rows=tuple(rows))


def within(budget: int) -> str:
    """Return the name of the plan that is run within a budget in bytes."""
    return f"within {human_bytes(budget)}"


def check(
    prediction: Prediction, run: EngineRun, residency: str = ALL_RESIDENT, *, capability: str | None = None
) -> MemoryCheck:
    """Compare a run's measured memory with the row for its executor, precision and `residency`.

    Of plans for several GPUs that of `capability` ("sm_90") counts.

    Raises:
        ValueError: There is no such row; a run on the CPU has none.
    """
    row = _row_of(prediction, run, residency, capability)
    memory = run.memory
    loaded = sum(component.weights for component in memory.components.values())
    measured = {
        # what takes turns is loaded when its turn comes, not before
        "weights": loaded if loaded and residency == ALL_RESIDENT else None,
        "activations": memory.arena or None,  # ONNX Runtime's are its own, and only in the peak
        "buffers": None if memory.buffers is None else memory.buffers + (memory.graphs or 0),
        "peak": memory.device_peak,
    }
    rows = tuple(
        Checked(what=what, predicted=getattr(row, what), measured=found)
        for what, found in measured.items()
        if found is not None
    )
    return MemoryCheck(executor=row.executor, precision=row.precision, residency=residency, rows=rows)


def _row_of(prediction: Prediction, run: EngineRun, residency: str, capability: str | None) -> Predicted:
    name = run.executor.rpartition(" (")[0]
    rows = {
        row.executor: row
        for row in prediction.rows
        if f"{row.executor} ".startswith(f"{name} ") and (row.precision, row.residency) == (run.precision, residency)
    }
    alike = rows if len(rows) == 1 else {f"{name} {capability}"} & rows.keys()
    if not alike:
        raise ValueError(f"nothing was predicted for {run.executor}, {run.precision}, {residency}")
    return rows[next(iter(alike))]


def _ways(bundle: Bundle) -> Iterator[_Way]:
    costs = onnxruntime_costs(bundle, usual_shape(bundle))
    stored = {name: graph.weight_bytes for name, graph in bundle.manifest.graphs.items()}
    yield _Way(executor=ONNXRUNTIME, precision=precision_of(bundle), costs=costs, stored=stored)
    complete = _complete(bundle)
    saved = bytes_saved(bundle) if complete and bundle.graph(DENOISER).quantization is None else {}
    for label, plans in complete.items():
        costs = plan_costs(bundle, plans)
        stored = {name: cost.weights for name, cost in costs.items()}
        own = _Way(executor=label, precision=precision_of(bundle), costs=costs, stored=stored)
        yield own
        yield from (own.narrowed(name, size) for name, size in saved.items())


def _complete(bundle: Bundle) -> dict[str, dict[str, PlanManifest]]:
    """Return the bundle's plans by library and GPU, where there is one for every component; the latest of each."""
    found: dict[str, dict[str, PlanManifest]] = {}
    for entry in PlanStore.of(bundle.path).entries():
        if entry.manifest is not None and not outdated(entry, bundle):
            target = entry.manifest.ingredients.target
            plans = found.setdefault(f"{target.flavour} {target.version} {target.capability}", {})
            before = plans.get(entry.component)
            if before is None or before.created <= entry.manifest.created:
                plans[entry.component] = entry.manifest
    return {label: plans for label, plans in found.items() if plans.keys() == COMPONENTS.keys()}


def bytes_saved(bundle: Bundle) -> dict[str, int]:
    """Return by format how many bytes smaller the denoiser's weights become if its products are quantized to it."""
    shape = usual_shape(bundle)
    size = (16 * shape.grid[1], 16 * shape.grid[0])
    case = Case(size=size, reference=size, steps=shape.num_steps, batch=1, seed=0, guidance=0.0, prompt="")
    counted, graph = work_of(bundle, DENOISER.name, case), bundle.graph(DENOISER)
    scale_bytes = 4 if graph.opset >= _MIXED_SCALES_OPSET else graph.precision.item_bytes
    return {name: _saved(counted, RECIPES[name], scale_bytes) for name in NARROWER}


def _saved(counted: GraphWork, recipe: Recipe, scale_bytes: int) -> int:
    """Return the bytes that a recipe saves.

    FP8 takes a byte per weight and a scale per output; NVFP4 half a byte, a byte for each 16, one scale in float32.
    """
    saved = 0
    for one in counted.heavy:
        form = recipe.format_of(DENOISER.name, one.weight.removesuffix(".weight")) if one.weight else None
        if form is not None:
            items = prod(one.weight_shape)
            fp8 = items + one.weight_shape[0] * scale_bytes
            narrow = fp8 if isinstance(form, Fp8) else items // 2 + items // 16 + 4
            saved += counted.weights[one.weight].size_bytes - narrow
    return saved


def _row(way: _Way, name: str, plan: ResidencyPlan) -> Predicted:
    weights = plan.streaming_budget
    for one in plan.beside(plan.fullest):
        weights += way.stored[one] - (way.costs[one].streamable if plan.of(one) is Residency.STREAMED else 0)
    return Predicted(
        executor=way.executor,
        precision=way.precision,
        residency=name,
        weights=weights,
        activations=plan.peak - plan.fixed - weights,
        buffers=plan.fixed,
        peak=plan.peak,
        moved=plan.moved,
    )

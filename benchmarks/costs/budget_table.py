"""Prints what stays on a GPU of a given size, for FLUX.1 Kontext in bf16, FP8 and NVFP4, from the compiler's counts.

    python -m kontext_trt.benchmarks.costs.budget_table
    python -m kontext_trt.benchmarks.costs.budget_table --check 4+4

Networks of full width and few blocks, random weights, are compiled by TensorRT-RTX; no GPU is needed. A plan's size is
linear in the blocks: three compilations of each give the whole's. Activations do not depend on them, which `--check`
shows with more blocks. T5 is in FP8 where the denoiser is quantized. A whole request's buffers come to it.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...engine.builder.build import build
from ...engine.builder.plan_build import plan_build
from ...engine.bundle.bundle import Bundle
from ...engine.byte_sizes import human_bytes, parse_bytes
from ...engine.components import COMPONENTS, Precision, Runs
from ...engine.errors import BudgetError
from ...engine.flavour import FlavourName, load_flavour
from ...engine.plans.coverage import Coverage
from ...engine.plans.targets import make_target
from ...engine.sizes import TRAINED_SIZES
from ...export.configs import ModelConfig, T5Config, TransformerConfig
from ...export.environment import quiet_libraries, require_export
from ...export.graphs.recipes import make_recipe
from ...runtime.device.residency import Cost, Residency, ResidencyPlan, plan_residency
from ...runtime.executors.budgets import GRAPH_BYTES
from ...runtime.flow.tensors import request_tensors, total_bytes, usual_shape
from ..fixtures.made_up_ranges import quantize_at_made_up_ranges
from ..fixtures.sparse_checkpoint import write_sparse_checkpoint
from ..program import parse_blocks, run_main
from .quantized_cost import with_random_weights

QUANTIZED = ("fp8", "nvfp4")
PRECISIONS = ("bf16", *QUANTIZED)
BUDGETS = ("8GiB", "12GiB", "16GiB", "24GiB", "31GiB", "32GiB")
"""The memory of common cards; of one of 32 GB, 31 GiB are free."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Counts a model's blocks and T5's layers."""

    doubles: int
    singles: int
    layers: int

    @property
    def config(self) -> ModelConfig:
        transformer = TransformerConfig(num_double_blocks=self.doubles, num_single_blocks=self.singles)
        return ModelConfig(transformer=transformer, t5=T5Config(num_layers=self.layers))

    @property
    def terms(self) -> tuple[int, int, int, int]:
        """The numbers that the size of a plan is a sum of multiples of."""
        return (1, self.doubles, self.singles, self.layers)


WHOLE = Depth(19, 38, 24)
COMPILED = (Depth(1, 1, 1), Depth(2, 1, 1), Depth(1, 2, 1), Depth(1, 1, 2))


@dataclass(frozen=True, slots=True)
class Counted:
    """Holds what the compiler counted of a component: its plan and its activations, in bytes."""

    plan: int
    activations: int


def compile_at(depth: Depth, gpu: str, work: Path | None) -> tuple[dict[tuple[str, str], Counted], int]:
    """Return what the compiler counts by precision and component, and the bytes of a whole request's buffers."""
    from ...export.checkpoint import open_checkpoint
    from ...export.export import ExportOptions, export_bundle
    from ...export.graphs.trace import model_dims

    counted: dict[tuple[str, str], Counted] = {}
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        write_sparse_checkpoint(folder / "checkpoint", depth.config)
        options = ExportOptions(precision=Precision.BF16)
        bundle = export_bundle(open_checkpoint(folder / "checkpoint"), folder / "bf16", options)
        bundles = {"bf16": bundle} | {
            precision: quantize_at_made_up_ranges(bundle, folder / precision, make_recipe(precision, t5=True))
            for precision in QUANTIZED
        }
        for precision, made in bundles.items():
            components = [name for name in COMPONENTS if made is bundle or made.graph(name).quantization is not None]
            for component, found in compile_all(with_random_weights(made, whole=True), components, gpu).items():
                counted[precision, component] = found
        model = replace(bundle.manifest.model, dims=model_dims(WHOLE.config))
        whole = replace(bundle, manifest=replace(bundle.manifest, model=model))
        buffers = total_bytes(request_tensors(whole, usual_shape(whole)))
    return counted, buffers


def compile_all(bundle: Bundle, components: Sequence[str], gpu: str) -> dict[str, Counted]:
    """Build plans of a bundle for the trained sizes, and return what the compiler counted."""
    target = make_target(load_flavour(FlavourName.TENSORRT_RTX), gpu, ())
    counted: dict[str, Counted] = {}
    for planned in plan_build(bundle, components, target, Coverage(sizes=TRAINED_SIZES)):
        manifest = build(planned).manifest
        assert not manifest.warnings, manifest.warnings
        counted[planned.ingredients.component] = Counted(manifest.size_bytes, manifest.census.activation_bytes)
    return counted


def whole_costs(
    compiled: Mapping[Depth, Mapping[tuple[str, str], Counted]], precision: str, *, steps: int
) -> dict[str, Cost]:
    """Return what the whole model's components take, from smaller ones."""
    costs: dict[str, Cost] = {}
    terms = np.array([depth.terms for depth in compiled])
    for name, component in COMPONENTS.items():
        counts = [counted.get((precision, name)) or counted["bf16", name] for counted in compiled.values()]
        factors = np.linalg.lstsq(terms, np.array([one.plan for one in counts]), rcond=None)[0]
        costs[name] = Cost(
            weights=round(float(factors @ np.array(WHOLE.terms))),
            activations=max(one.activations for one in counts),
            runs=component.runs_in(steps),
            per_prompt=component.runs is Runs.PROMPT,
        )
    return costs


def row(precision: str, budget: str, costs: Mapping[str, Cost], fixed: int) -> str:
    """Return a line of the table."""
    try:
        plan = plan_residency(costs, fixed=fixed, budget=parse_bytes(budget))
    except BudgetError as error:
        return f"| {budget} | {precision} | refused: {str(error).rpartition(': ')[2]} | | | |"
    return (
        f"| {budget} | {precision} | {_said(plan)} | {human_bytes(plan.moved)} | {human_bytes(plan.moved_again)} | "
        f"{_launches(plan)} |"
    )


def _said(plan: ResidencyPlan) -> str:
    turns = [name for name in plan.costs if plan.of(name) is Residency.TURN]
    if not turns:
        return "everything stays"
    away = [
        f"{name} comes in the place of {' and '.join(gone)}" if gone else f"{name} comes for its turn"
        for name in turns
        for gone in [[one for one in plan.costs if plan.of(one) is Residency.YIELDING and one not in plan.beside(name)]]
    ]
    return "; ".join(away)


def _launches(plan: ResidencyPlan) -> str:
    """Say of how many graphs a request with a remembered prompt and a new picture is, if the rest is enqueued."""
    order = [name for name, cost in plan.costs.items() if not cost.per_prompt]
    stays = [plan.of(name).stays for name in order]
    if all(stays):
        return "one launch"
    return f"{' and '.join(name for name, kept in zip(order, stays, strict=True) if not kept)} by calls"


def main() -> None:
    """Compile, and print the table."""
    parser = argparse.ArgumentParser(description="What stays on a GPU of a given size.")
    parser.add_argument("--gpu", default="sm_120", help="compute capability")
    parser.add_argument("--budget", action="append", help="as 24GiB, several times; default: those of common cards")
    parser.add_argument("--check", help="double+single blocks to compile beside, whose activations must be the same")
    parser.add_argument("--work", type=Path, help="where weights and plans go while it runs")
    arguments = parser.parse_args()
    budgets = arguments.budget or BUDGETS
    for budget in budgets:
        parse_bytes(budget)  # what is no size is said before anything is compiled
    checked = Depth(*parse_blocks(arguments.check), 4) if arguments.check else None
    require_export()
    quiet_libraries()
    print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, for {arguments.gpu}")
    compiled: dict[Depth, dict[tuple[str, str], Counted]] = {}
    buffers = 0  # the same at each depth
    for depth in COMPILED:
        compiled[depth], buffers = compile_at(depth, arguments.gpu, arguments.work)
    print("| precision | component | plan of the whole | activations |\n|---|---|---|---|")
    costs = {precision: whole_costs(compiled, precision, steps=28) for precision in PRECISIONS}
    for precision, parts in costs.items():
        for name, cost in parts.items():
            print(f"| {precision} | {name} | {cost.weights:,} | {cost.activations:,} |")
    print("\n| budget | precision | what moves | new prompt | remembered | remembered, new picture |")
    print("|---|---|---|---|---|---|")
    for budget in budgets:
        for precision in PRECISIONS:
            print(row(precision, budget, costs[precision], buffers + GRAPH_BYTES))
    if checked is not None:
        _check(checked, costs, arguments)


def _check(depth: Depth, costs: Mapping[str, Mapping[str, Cost]], arguments: argparse.Namespace) -> None:
    """Compile more blocks, and print how their activations differ."""
    counted, _ = compile_at(depth, arguments.gpu, arguments.work)
    print(f"\n| precision | component | activations, {depth.doubles}+{depth.singles} blocks | against fewer |")
    print("|---|---|---|---|")
    for (precision, name), found in counted.items():
        fewer = costs[precision][name].activations
        print(f"| {precision} | {name} | {found.activations:,} | {found.activations / fewer - 1:+.1%} |")


if __name__ == "__main__":
    run_main(main)

"""Counts how far each stage is from what the GPU allows, and what of a step is taken out of the loop.

    python -m kontext_trt.benchmarks.bench.roofline BUNDLE [--size 1024x1024] [--generate] [--unpruned BUNDLE]
        [--copy 4.0e12 --products 800e12 --attention 650e12] [--operators]

Hoisting and pruning take it out. The limit takes elementwise operators as fused: it is the sum over matrix products,
convolutions and attention of the longer of their arithmetic and their traffic, and not below reading all weights,
inputs and outputs once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.manifest import ModelRecord
from ...engine.components import DENOISER, KNOWN_COMPONENTS, Runs
from ...engine.errors import BundleError
from ...engine.sizes import parse_size, squarest, token_grid
from ...runtime.flow.stages import Condition, Decode, EncodeReference, EncodeText, Step
from ..program import positive, run_main
from .graph_work import GraphWork, Heavy, count_work
from .records import Case, Ceilings, Hoisting, LoopWork, Roofline, StageLimit, Work

STAGES: Mapping[str, tuple[str, ...]] = {
    EncodeText.name: EncodeText.components,
    EncodeReference.name: EncodeReference.components,
    Condition.name: Condition.components,
    "step": Step(0).components,
    Decode.name: Decode.components,
}
"""The components by stage, one prompt and one step each."""
PRODUCTS, ATTENTION, TRAFFIC = "products", "attention", "traffic"


def roofline(
    bundle: Bundle, case: Case, ceilings: Ceilings | None = None, measured_ms: Mapping[str, float] | None = None
) -> Roofline:
    """Return each stage's work, and with `ceilings` its limit.

    Each product counts at the rate of its own number format, as FP8 of a quantized step does, and so does attention. A
    stage that computes in a number format without a measured rate has no limit.

    Args:
        bundle: The bundle whose graphs are counted.
        case: The request.
        ceilings: What the GPU reaches.
        measured_ms: Warm times by stage, "step" one step's.

    Raises:
        MissingDependencyError: The onnx package is not installed.
        BundleError: A graph cannot be counted.
    """
    stages = {}
    for stage, components in STAGES.items():
        if stage == "encode" and case.reference is None:
            continue
        runs = case.batch if stage == "decode" else 1
        counted = [work_of(bundle, component, case) for component in components]
        stages[stage] = stage_limit(counted, ceilings, (measured_ms or {}).get(stage), runs=runs)
    return Roofline(stages=stages)


def work_of(bundle: Bundle, component: str, case: Case, *, steps: int | None = None) -> GraphWork:
    """Return the work of one run of a component in a request.

    `steps` is how many timesteps the conditioner is given; default: all.
    """
    dims = dynamic_extents(component, case, bundle.manifest.model) | ({} if steps is None else {"N": steps})
    return count_work(bundle.open_graph(component), dims)


def dynamic_extents(component: str, case: Case, model: ModelRecord) -> dict[str, int]:
    """Return the dynamic dimensions of a component in a request, by their names in `components.DYNAMIC_DIMS`.

    Encoders and decoder run once per prompt or picture.
    """
    target = token_grid(case.size)
    reference = None if case.reference is None else token_grid(case.reference)
    rows, columns = (
        reference if reference is not None and KNOWN_COMPONENTS[component].runs is Runs.REFERENCE else target
    )
    n = target[0] * target[1]
    m = 0 if reference is None else reference[0] * reference[1]
    batch = case.batch if KNOWN_COMPONENTS[component].batched else 1
    s = model.dims.text_length + n + m
    return {"b": batch, "n": n, "m": m, "s": s, "N": case.steps, "h": rows, "w": columns}


def stage_limit(
    counted: Sequence[GraphWork], ceilings: Ceilings | None, measured_ms: float | None, *, runs: int = 1
) -> StageLimit:
    """Return the limit of components that run one after another, all of them `runs` times."""
    work = _sum([one.work() for one in counted], runs)
    lacks = (
        () if ceilings is None else tuple(dict.fromkeys(name for one in counted for name in _lacking(one, ceilings)))
    )
    if ceilings is None or lacks:
        return StageLimit(work=work, limit_ms=None, bound=None, measured_ms=measured_ms, share=None, lacks=lacks)
    times = [_times(one, ceilings) for one in counted]
    parts = {name: runs * sum(one[name] for one in times) for name in (PRODUCTS, ATTENTION, TRAFFIC)}
    limit = 1e3 * sum(parts.values())
    return StageLimit(
        work=work,
        limit_ms=limit,
        bound=max(parts, key=lambda name: parts[name]),
        measured_ms=measured_ms,
        share=limit / measured_ms if measured_ms else None,
    )


def _rates(one: Heavy, ceilings: Ceilings) -> tuple[str, Mapping[str, float]]:
    """Return what a product or an attention counts as, and the rates of that by number format."""
    return (ATTENTION, ceilings.attention) if one.is_attention else (PRODUCTS, ceilings.products)


def _lacking(counted: GraphWork, ceilings: Ceilings) -> Iterator[str]:
    for one in counted.heavy:
        kind, rates = _rates(one, ceilings)
        if one.number_format not in rates:
            yield f"{one.number_format} {kind}"


def _times(counted: GraphWork, ceilings: Ceilings) -> dict[str, float]:
    """Return the seconds that a component cannot do without, by what takes them; their sum is its limit."""
    seconds = {PRODUCTS: 0.0, ATTENTION: 0.0, TRAFFIC: 0.0}
    for one in counted.heavy:
        kind, rates = _rates(one, ceilings)
        arithmetic, traffic = one.operations / rates[one.number_format], one.size_bytes / ceilings.copy
        seconds[kind if arithmetic >= traffic else TRAFFIC] += max(arithmetic, traffic)
    least = (counted.weight_bytes + counted.io_bytes) / ceilings.copy
    if sum(seconds.values()) < least:
        return {PRODUCTS: 0.0, ATTENTION: 0.0, TRAFFIC: least}
    return seconds


def _sum(works: Sequence[Work], runs: int) -> Work:
    """Add work up; weights count once, whatever the runs."""

    def added(sums: Sequence[Mapping[str, float]]) -> dict[str, float]:
        formats = dict.fromkeys(name for one in sums for name in one)
        return {name: runs * sum(one.get(name, 0.0) for one in sums) for name in formats}

    return Work(
        products=added([work.products for work in works]),
        attention=added([work.attention for work in works]),
        weight_bytes=sum(work.weight_bytes for work in works),
        io_bytes=runs * sum(work.io_bytes for work in works),
        parameters=sum(work.parameters for work in works),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loop:
    """Describes what is run in every step: whole components, and operators to count besides.

    A weight of two counts once.
    """

    components: tuple[GraphWork, ...]
    more: tuple[Heavy, ...] = ()
    less: tuple[Heavy, ...] = ()

    def work(self) -> LoopWork:
        heavy = [one for component in self.components for one in component.heavy] + list(self.more)
        weights = {name: weight for component in self.components for name, weight in component.weights.items()}
        return LoopWork(
            parameters=sum(weight.parameters for weight in weights.values()),
            operations=sum(one.operations for one in heavy) - sum(one.operations for one in self.less),
            weight_bytes=sum(weight.size_bytes for weight in weights.values()),
            traffic_bytes=sum(one.size_bytes for one in heavy) - sum(one.size_bytes for one in self.less),
        )


def hoisting(bundle: Bundle, case: Case, unpruned: Bundle | None = None) -> Hoisting:
    """Return a step's work before and after hoisting and pruning.

    Undivided, a step is the conditioner with one timestep and a denoiser whose last block is whole. That denoiser is
    `unpruned`'s; without one, its last block counts as the one before it. The reference implementations also compute
    the final layer for reference tokens; that is left out of all three.

    Raises:
        MissingDependencyError: The onnx package is not installed.
        BundleError: A graph cannot be counted, `unpruned` is pruned, too, or a model has one single block and there
            is no `unpruned`.
    """
    (condition,) = Condition.components
    conditioner, pruned = work_of(bundle, condition, case, steps=1), work_of(bundle, DENOISER.name, case)
    if unpruned is not None:
        whole = _Loop(components=(work_of(unpruned, DENOISER.name, case),))
    else:
        last = bundle.manifest.model.num_single_blocks - 1
        if last < 1:
            raise BundleError("with a single block alone, what pruning saves is counted against an unpruned bundle")
        whole = _Loop(components=(pruned,), more=single_block(pruned, last - 1), less=single_block(pruned, last))
    undivided = _Loop(components=(conditioner, *whole.components), more=whole.more, less=whole.less)
    found = Hoisting(undivided=undivided.work(), hoisted=whole.work(), pruned=_Loop(components=(pruned,)).work())
    if unpruned is not None and found.hoisted.operations <= found.pruned.operations:
        raise BundleError(f"the denoiser of {unpruned.path} has no more to do in its last block: it is pruned, too")
    return found


def single_block(denoiser: GraphWork, index: int) -> tuple[Heavy, ...]:
    """Return the products and attention of one single block, the first being 0; raise ValueError if there is none."""
    of_block = f"single_transformer_blocks.{index}."
    places = [place for place, one in enumerate(denoiser.heavy) if one.weight.startswith(of_block)]
    if not places:
        raise ValueError(f"the denoiser has no single block {index}")
    between = denoiser.heavy[places[0] : places[-1] + 1]
    return tuple(one for one in between if one.weight.startswith(of_block) or not one.weight)


def main() -> None:
    """Count and print."""
    from .work_table import show  # prints; the rest of this module only counts

    parser = argparse.ArgumentParser(description="The work of a request's stages, counted in a bundle's graphs.")
    parser.add_argument("bundle")
    parser.add_argument("--size", help="WIDTHxHEIGHT of output and reference")
    parser.add_argument("--generate", action="store_true", help="without a reference")
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--unpruned", help="a bundle whose last block is whole")
    parser.add_argument("--copy", type=float, help="bytes a second")
    parser.add_argument("--products", type=float, help="operations a second, in every number format")
    parser.add_argument("--attention", type=float, help="the same of attention")
    parser.add_argument("--operators", action="store_true", help="also a step's bytes by operator, were none fused")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    size = parse_size(arguments.size) if arguments.size else squarest(bundle.manifest.model.sizes)
    case = Case(
        size=size,
        reference=None if arguments.generate else size,
        steps=bundle.manifest.model.flow.steps,
        batch=arguments.batch,
        seed=0,
        guidance=bundle.manifest.model.flow.guidance,
        prompt="",
    )
    ceilings = None
    if arguments.copy and arguments.products and arguments.attention:
        formats = ("fp32", "fp16", "bf16", "fp8", "nvfp4")
        ceilings = Ceilings(
            copy=arguments.copy,
            products=dict.fromkeys(formats, arguments.products),
            attention=dict.fromkeys(formats, arguments.attention),
            how="as given",
        )
    unpruned = None if arguments.unpruned is None else Bundle.open(arguments.unpruned)
    traffic = work_of(bundle, DENOISER.name, case).traffic if arguments.operators else {}
    show(roofline(bundle, case, ceilings), hoisting(bundle, case, unpruned), traffic)


if __name__ == "__main__":
    run_main(main)

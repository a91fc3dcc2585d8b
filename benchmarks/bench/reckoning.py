"""Estimates the seconds of a picture on a GPU that is not there: from the work in the graphs and the GPU's data sheet.

What comes out is a limit: every product at the sheet's rate, everything else for nothing. No engine reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from ...engine.bundle.bundle import Bundle
from ...engine.components import CACHED_DENOISER, DENOISER, STEP_CACHE
from ...engine.errors import BundleError, OptionError
from ...export.graphs.recipes import Fp8, Nvfp4, Recipe
from ...runtime.flow.stages import Condition, EncodeReference
from .graph_work import GraphWork, Heavy, Weight
from .records import Case, Ceilings
from .roofline import STAGES, stage_limit, work_of

NVFP4_BYTES = 0.5 + 1 / 16
"""The bytes of a weight in NVFP4: E2M1, with an E4M3 scale per 16."""
FP8_SCALE_BYTES = 4
"""The bytes of the scale that each output channel of a weight in FP8 has."""
SHEETS: Mapping[str, Ceilings] = {
    "RTX 5090": Ceilings(
        copy=1.792e12,
        products={"fp32": 104.8e12, "fp16": 209.5e12, "bf16": 209.5e12, "fp8": 419e12, "nvfp4": 1676e12},
        attention={"fp32": 104.8e12, "fp16": 209.5e12, "bf16": 209.5e12, "fp8": 419e12},
        how="NVIDIA RTX Blackwell GPU architecture: dense, accumulated in float32; 1792 GB/s",
    ),
    "H200": Ceilings(
        copy=4.8e12,
        products={"fp32": 67e12, "fp16": 989e12, "bf16": 989e12, "fp8": 1979e12},
        attention={"fp32": 67e12, "fp16": 989e12, "bf16": 989e12, "fp8": 1979e12},
        how="NVIDIA H200 SXM data sheet: dense; 4.8 TB/s",
    ),
}
"""The rates of data sheets, in operations and bytes per second, by GPU."""


def sheet(gpu: str) -> Ceilings:
    """Return a GPU's rates. Raises OptionError, listing those that are known, for another."""
    if gpu not in SHEETS:
        raise OptionError(f"the GPU is one of {', '.join(SHEETS)}, whose data sheets are known here, not {gpu!r}")
    return SHEETS[gpu]


def as_quantized(work: GraphWork, recipe: Recipe, component: str = DENOISER.name) -> GraphWork:
    """Return the work of a graph as a recipe would make it: products, weights and low-rank branches.

    Activations count as they are stored between the products.

    Args:
        work: The work of the component's graph, not quantized.
        recipe: What is quantized.
        component: The component's name, by which a recipe knows its layers.
    """
    heavy: list[Heavy] = []
    weights = dict(work.weights)
    for one in work.heavy:
        chosen = recipe.format_of(component, one.weight.removesuffix(".weight")) if one.weight else None
        if one.is_attention and recipe.fp8_attention:
            heavy.append(replace(one, number_format="fp8"))
        elif one.is_attention or not isinstance(chosen, (Fp8, Nvfp4)):
            heavy.append(one)
        else:
            before = weights[one.weight]
            if isinstance(chosen, Fp8):
                size = before.parameters + FP8_SCALE_BYTES * one.weight_shape[0]  # (outputs, inputs)
            else:
                size = round(before.parameters * NVFP4_BYTES)
            narrow = Weight(parameters=before.parameters, size_bytes=size)
            weights[one.weight] = narrow
            name = "fp8" if isinstance(chosen, Fp8) else "nvfp4"
            less = before.size_bytes - narrow.size_bytes
            heavy.append(replace(one, number_format=name, size_bytes=one.size_bytes - less))
            if isinstance(chosen, Nvfp4) and chosen.rank:
                heavy.append(_branch(one, chosen.rank, before.size_bytes / before.parameters))
    return replace(work, heavy=tuple(heavy), weights=weights)


def _branch(one: Heavy, rank: int, bytes_per_value: float) -> Heavy:
    """Return the low-rank branch beside a product, as one: x (m, k) by (k, rank) by (rank, n)."""
    outputs, inputs = one.weight_shape
    rows = one.operations / (2 * inputs * outputs)
    size = bytes_per_value * (rows * (inputs + outputs) + rank * (inputs + outputs))
    return replace(
        one,
        node=f"{one.node}.branch",
        operations=2 * rows * rank * (inputs + outputs),
        size_bytes=round(size),
        weight="",
        weight_shape=(),
    )


class Reckoning:
    """Estimates pictures of one size with one bundle's graphs, each of which is counted once.

    Args:
        bundle: A bundle that is not quantized, of the model whose seconds are asked for.
        ceilings: The GPU's rates.
        case: A request; its steps are left out of account.

    Raises:
        BundleError: The bundle is quantized.
    """

    def __init__(self, bundle: Bundle, ceilings: Ceilings, case: Case) -> None:
        if bundle.graph(DENOISER.name).quantization is not None:
            raise BundleError(
                f"{bundle.path} is quantized; what a recipe makes of a model is reckoned from one that is not"
            )
        self._bundle, self._ceilings, self._case = bundle, ceilings, case
        self._counted: dict[tuple[str, int], GraphWork] = {}

    def step_seconds(self, recipe: Recipe, *, cached: bool = False) -> float | None:
        """Return the seconds of a step, whole or cached; None where the GPU has no rate for what it computes in.

        A recipe leaves the graph of cached steps alone.

        Raises:
            BundleError: A graph cannot be counted, or the bundle has no cached steps.
        """
        if cached:
            self._bundle.require(STEP_CACHE)
            return self._seconds([self._work(CACHED_DENOISER.name, 1)])
        return self._seconds([as_quantized(self._work(DENOISER.name, 1), recipe)])

    def other_seconds(self, steps: int) -> float | None:
        """Return the seconds of all stages but the steps, which no recipe here changes; None without a rate for them.

        Raises:
            BundleError: A graph cannot be counted.
        """
        stages = {name: components for name, components in STAGES.items() if name != "step"}
        if self._case.reference is None:
            del stages[EncodeReference.name]
        seconds = [
            self._seconds([self._work(one, steps if name == Condition.name else 1) for one in components])
            for name, components in stages.items()
        ]
        known = [one for one in seconds if one is not None]
        return sum(known) if len(known) == len(seconds) else None

    def _work(self, component: str, steps: int) -> GraphWork:
        if (component, steps) not in self._counted:
            case = msgspec.structs.replace(self._case, steps=steps)
            self._counted[component, steps] = work_of(self._bundle, component, case)
        return self._counted[component, steps]

    def _seconds(self, counted: Sequence[GraphWork]) -> float | None:
        limit = stage_limit(counted, self._ceilings, None).limit_ms
        return None if limit is None else limit / 1000

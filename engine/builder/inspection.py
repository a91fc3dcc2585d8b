"""Reads what came out of a build from its log or from the engine, and holds it against what was asked for."""

from __future__ import annotations

from pathlib import Path

from ..bundle.bundle import Bundle
from ..bundle.graph_file import GraphFile
from ..components import KNOWN_COMPONENTS
from ..errors import BuildError
from ..plans.census import Census, shortfalls, take_census
from ..plans.ingredients import Ingredients
from ..plans.kernels import kernels_in_plan
from ..plans.layers import layers_from_inspector, layers_from_log, memory_from_log
from ..plans.profiles import io_bytes
from .attempts import Attempt


def inspect_build(ingredients: Ingredients, graph: GraphFile, bundle: Bundle, attempt: Attempt, plan: Path) -> Census:
    """Count what the compiler made of a graph: `plan` is the file that it wrote.

    Raises:
        BuildError: The compiler told nothing about the engine's layers.
    """
    assert attempt.compiled is not None
    lines = attempt.log.read_text(errors="replace").splitlines()
    listing = attempt.compiled.layers
    layers = layers_from_inspector(listing) if listing else layers_from_log(lines)
    if not layers:
        raise BuildError(
            f"the compiler listed no layers, so {ingredients.component} cannot be checked. The log is {attempt.log}"
        )
    memory = memory_from_log(lines)
    component, model = bundle.component(ingredients.component), bundle.manifest.model
    return take_census(
        layers,
        attention_asked=graph.num_attention,
        weight_bytes=memory["weights"],
        activation_bytes=memory["activation"] or attempt.compiled.activation_bytes,
        io_bytes=io_bytes(component, ingredients.coverage, model, ingredients.precision),
        quantized_products=graph.quantized_products,
        kernels=kernels_in_plan(plan),
    )


def not_as_asked(ingredients: Ingredients, census: Census) -> tuple[str, ...]:
    """Say in words what an engine does not do as it was asked to."""
    sixteen_bits = ingredients.precision.item_bytes == 2
    return tuple(
        shortfalls(
            census,
            precision=ingredients.precision.value,
            fused_attention=KNOWN_COMPONENTS[ingredients.component].dedicated_attention and sixteen_bits,
        )
    )

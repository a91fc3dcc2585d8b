"""Collects everything that decides what a plan is, and makes the key of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
from msgspec import Meta

from ..bundle.bundle import Bundle
from ..components import Precision
from ..documents import Count, Sha256, Text
from .coverage import Coverage
from .options import BuildOptions
from .profiles import ShapeRange, profile_of
from .targets import Target

REVISION = 2
"""The count of changes of our own that make a plan of the same ingredients another one.

Since 2, plans of TensorRT-RTX can be recorded in a CUDA graph.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFingerprint:
    """Describes a weights file by its size and a sample of its bytes.

    Attributes:
        size_bytes: The size of the file.
        sample_sha256: The hash of its header and the first KiB of each tensor (`WeightsRecord.sample_sha256`).
    """

    size_bytes: Count
    sample_sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """Holds everything that decides what a plan is. Its key is the hash of these.

    `recipe_sha256` is "" if the graph is not quantized.
    """

    component: Text
    precision: Precision
    graph_sha256: Sha256
    weights: Annotated[tuple[WeightsFingerprint, ...], Meta(max_length=1000)]
    recipe_sha256: Text
    target: Target
    coverage: Coverage
    profile: Mapping[Text, ShapeRange]
    options: BuildOptions
    revision: Count = REVISION

    @property
    def key(self) -> str:
        """The key: the first 32 hex digits of SHA-256 over all of the ingredients."""
        described = msgspec.to_builtins(self, order="deterministic")
        if self.coverage.references == 1:  # plans from before several could be asked for are the same
            del described["coverage"]["references"]
        canonical = msgspec.json.encode(described)  # fields as they are declared, mappings by their names
        return hashlib.sha256(canonical).hexdigest()[:32]


def plan_ingredients(
    bundle: Bundle, component: str, target: Target, coverage: Coverage, options: BuildOptions | None = None
) -> Ingredients:
    """Collect what a component's plan would be made of, from the bundle's manifest alone.

    A component with branches for LoRAs gets one stream, if nothing else is asked: TensorRT-RTX would run each branch on
    a stream of its own, and keep apart what they hold. The small denoiser then takes five times the activations.
    """
    manifest, graph, options = bundle.manifest, bundle.graph(component), options or BuildOptions()
    if bundle.component(component).kept_inputs and options.max_aux_streams is None:
        options = replace(options, max_aux_streams=0)
    hashes = {record.path: record.sha256 for record in manifest.files}
    weights = [record for record in manifest.weights if record.path in graph.weights]
    return Ingredients(
        component=component,
        precision=graph.precision,
        graph_sha256=hashes[graph.path],
        weights=tuple(
            WeightsFingerprint(size_bytes=record.size_bytes, sample_sha256=record.sample_sha256) for record in weights
        ),
        recipe_sha256=graph.quantization.recipe_sha256 if graph.quantization else "",
        target=target,
        coverage=coverage,
        profile=profile_of(bundle.component(component), coverage, manifest.model),
        options=options,
    )

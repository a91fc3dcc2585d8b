"""Says what a bundle takes of a device's memory when ONNX Runtime runs it."""

from __future__ import annotations

from math import prod

from ...engine.bundle.bundle import Bundle
from ...engine.components import KNOWN_COMPONENTS, Runs
from ...engine.growth import GrowsWith
from ..device.residency import Cost
from ..flow.tensors import RequestShape, image_name, request_tensors
from .fused_kernels import has_kernels

SESSION_BYTES = 128 << 20
"""The bytes that a session takes beside its weights and activations, measured at full size (docs/measurements)."""


def costs(bundle: Bundle, shape: RequestShape) -> dict[str, Cost]:
    """Return what the provider takes for a request: weights as they lie in the graphs, activations by rule of thumb.

    It does not say beforehand what it will need. Sessions share an arena, as large as the largest of them needs it.
    """
    tensors = request_tensors(bundle, shape)
    _, text, hidden = tensors["text_tokens"].shape
    values = {
        GrowsWith.NONE: 0,
        GrowsWith.TOKENS: shape.batch * (text + prod(shape.grid) + shape.num_reference_tokens) * hidden,
        GrowsWith.REFERENCE: max((prod(tensors[image_name(i)].shape) for i in range(len(shape.references))), default=0),
        GrowsWith.PICTURE: prod(tensors["pictures"].shape),
    }
    return {
        name: Cost(
            weights=graph.weight_bytes + SESSION_BYTES,
            activations=(use.held_fused if has_kernels(bundle, name) else use.held_per_value)
            * values[use.values]
            * graph.precision.item_bytes,
            runs=KNOWN_COMPONENTS[name].runs_in(shape.num_steps),
            per_prompt=KNOWN_COMPONENTS[name].runs is Runs.PROMPT,
        )
        for name, graph in bundle.manifest.graphs.items()
        for use in (KNOWN_COMPONENTS[name].onnxruntime,)
    }

"""Makes graphs read weights that are FP8 or NVFP4 already, such as ComfyUI's `fp8_scaled`, as they are quantized.

A checkpoint's own scales of inputs serve as its calibration: layers that the recipe `fp8` quantizes, and that have one,
multiply in FP8. NVFP4 weights are kept as such where the recipe `nvfp4` quantizes their layer and there is a scale for
its input, because no product takes them without; the others are dequantized once, when they are exported.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import onnx_ir as ir

from ...engine.bundle.manifest import QuantizationRecord
from ...engine.components import CACHED_DENOISER, DENOISER, Operators, Precision
from ...engine.errors import ExportError
from ..checkpoint.nvfp4 import Nvfp4View
from ..checkpoint.views import TensorView, View
from .functions import add_functions
from .linears import find_linears
from .quantizer import GraphQuantizer
from .recipes import AS_STORED, RECIPES, Fp8, Fp8Weights, Nvfp4

logger = logging.getLogger(__name__)

INPUT_SCALES = RECIPES["fp8"]
"""The recipe that says which layers' inputs are quantized, where a checkpoint has scales for them."""
NVFP4_LAYERS = RECIPES["nvfp4"]
"""The recipe that says which layers multiply in NVFP4, where a checkpoint has them in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLinear:
    """Says how a graph reads the FP8 or NVFP4 weight of a linear layer.

    Attributes:
        format: Whether its input is quantized, too.
        scale: What the weight is multiplied by; None where each row or block has a scale of its own: in a tensor.
        input_scale: What its input is divided by before it is rounded to FP8 or NVFP4, None where it is not.
    """

    format: Fp8 | Fp8Weights | Nvfp4
    scale: float | None
    input_scale: float | None


def stored_linears(
    component: str, model: ir.Model, views: Mapping[str, TensorView], *, operators: Operators, input_scales: bool
) -> dict[str, StoredLinear]:
    """Return how a component's linear layers read those of its weights that can be read as they lie.

    Args:
        component: The component's name.
        model: Its graph, as traced.
        views: The checkpoint's tensors.
        operators: The form of the graph.
        input_scales: Whether the checkpoint's scales of inputs are used.
    """
    found: dict[str, StoredLinear] = {}
    for name in find_linears(model):
        view = views.get(f"{name}.weight")
        if isinstance(view, Nvfp4View) and input_scales and _multiplies_in_nvfp4(component, name, view, operators):
            found[name] = StoredLinear(format=Nvfp4(), scale=None, input_scale=view.input_scale)
        if not isinstance(view, View) or not usable_as_fp8(view):
            continue
        wanted = isinstance(INPUT_SCALES.format_of(component, name), Fp8) and operators is not Operators.ONNXRUNTIME
        input_scale = view.input_scale if wanted and input_scales else None
        found[name] = StoredLinear(
            format=Fp8Weights() if input_scale is None else Fp8(),
            scale=None if view.row_scales is not None else view.scale_value,
            input_scale=input_scale,
        )
    return found


def check_shared(stored: Mapping[str, Mapping[str, StoredLinear]]) -> None:
    """Raise ExportError if the step cache's graph would need weights that only the denoiser can read as they lie."""
    kept = [name for name, one in stored[DENOISER.name].items() if isinstance(one.format, Nvfp4)]
    first = [name for name in kept if name.startswith("transformer_blocks.0.")]
    if CACHED_DENOISER.name in stored and first:
        raise ExportError(
            f"{first[0]} is kept in NVFP4, and steps are cached in the transformer's own type; export with "
            "--no-input-scales, or without --step-cache"
        )


def _multiplies_in_nvfp4(component: str, layer: str, view: Nvfp4View, operators: Operators) -> bool:
    if operators is not Operators.SINGLE or view.input_scale is None:
        return False
    return isinstance(NVFP4_LAYERS.format_of(component, layer), Nvfp4)


def usable_as_fp8(view: View) -> bool:
    """Return whether a linear layer can read the weight as it lies and scale it itself: an E4M3 matrix."""
    return view.dtype == "F8_E4M3" and len(view.shape) == 2


def quantize_stored(
    model: ir.Model, precision: Precision, layers: Mapping[str, StoredLinear], *, fused: bool = False
) -> Precision:
    """Make the linear layers of a graph read their weights as FP8 or NVFP4 and multiply them by their scales.

    Those that read FP8 weights alone become fused operators if it is asked for.

    Returns:
        The type of FP8's scales: tensors `NAME.weight_scale` of those with one per row must have it.
    """
    quantizer = GraphQuantizer(model, precision, {}, fused=fused)
    linears = find_linears(model)
    for name, layer in layers.items():
        quantizer.quantize(linears[name], layer.format, stored_scale=layer.scale, input_scale=layer.input_scale)
    if fused:
        add_functions(model, precision)
    return quantizer.scale_precision


def tell_unused_scales(
    source: str, views: Mapping[str, TensorView], layers: Iterable[Mapping[str, StoredLinear]]
) -> None:
    """Log how many of a checkpoint's scales of inputs no graph uses: a warning where it is all of them."""
    there = sum(isinstance(view, (View, Nvfp4View)) and view.input_scale is not None for view in views.values())
    used = sum(layer.input_scale is not None for some in layers for layer in some.values())
    if there > used:
        logger.log(
            logging.INFO if used else logging.WARNING,
            "%s has scales of the inputs of %d weights, of which %d are used: the other layers multiply in their "
            "graph's type",
            source,
            there,
            used,
        )


def as_stored_record(layers: Iterable[StoredLinear]) -> QuantizationRecord | None:
    """Return the manifest's record of a graph that reads weights as they are quantized; None if there are none."""
    layers = tuple(layers)
    scales = [layer.input_scale for layer in layers if layer.input_scale is not None]
    kinds = Counter(type(layer.format) for layer in layers)
    products = {"fp8": kinds[Fp8], "fp8_weights": kinds[Fp8Weights], "nvfp4": kinds[Nvfp4]}
    if not layers:
        return None
    return QuantizationRecord(
        recipe=AS_STORED,
        recipe_sha256=hashlib.sha256(AS_STORED.encode()).hexdigest(),
        calibration_sha256=hashlib.sha256(msgspec.json.encode(scales)).hexdigest() if scales else "",
        products={name: count for name, count in products.items() if count},
    )

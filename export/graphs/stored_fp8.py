"""Makes graphs read weights that are FP8 already, such as ComfyUI's `fp8_scaled`, as they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import onnx_ir as ir

from ...engine.bundle.manifest import QuantizationRecord
from ...engine.components import Precision
from .linears import find_linears
from .quantizer import GraphQuantizer
from .recipes import Fp8Weights

AS_STORED = "as stored"
"""The recipe's name in the manifest of a bundle that nobody quantized."""


def dequantize_stored(model: ir.Model, precision: Precision, scales: Mapping[str, float]) -> int:
    """Make every linear layer whose weight `scales` names read it as FP8 and multiply it by its scale.

    Returns:
        How many there were; scales of other components' layers are left aside.
    """
    quantizer = GraphQuantizer(model, precision, {})
    stored = [linear for linear in find_linears(model).values() if f"{linear.name}.weight" in scales]
    for linear in stored:
        quantizer.quantize(linear, Fp8Weights(), stored_scale=scales[f"{linear.name}.weight"])
    return len(stored)


def as_stored_record(num_layers: int) -> QuantizationRecord:
    """Return the manifest's record of a graph that reads `num_layers` FP8 weights as they are stored."""
    return QuantizationRecord(
        recipe=AS_STORED,
        recipe_sha256=hashlib.sha256(AS_STORED.encode()).hexdigest(),
        calibration_sha256="",
        products={"fp8_weights": num_layers},
    )

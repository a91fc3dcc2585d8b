"""Reads FP8 weights with their scales: one per tensor or one per row, and ComfyUI's scales of inputs."""

from __future__ import annotations

import math
from dataclasses import replace

from ...engine.errors import CheckpointError
from .layers import StoredLayer
from .views import FLOATS, TensorView, View

ABSENT = 1.0
"""The `scale_input` that ComfyUI's older files have where there is none."""
DECLARED = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
"""The types of weights by ComfyUI's names of formats."""
_SCALES = FLOATS - {"F8_E4M3", "F8_E5M2"}


def read_fp8(layer: StoredLayer) -> View:
    """Return a weight that is multiplied by the scale beside it, and what is known of the layer's input.

    Raises:
        CheckpointError: There is a tensor beside it that does not belong there, or a scale is of another shape or no
            positive number.
    """
    weight = layer.weight
    if not all(isinstance(view, View) for view in layer.tensors.values()):
        raise CheckpointError(f"{layer.source}: {layer.name} has scales beside a weight that is not stored as FP8")
    assert isinstance(weight, View)
    if weight.dtype != DECLARED.get(layer.format or "", weight.dtype):
        raise CheckpointError(
            f"{layer.source}: {layer.name} is declared as {layer.format} and stored as {weight.dtype}"
        )
    odd = layer.tensors.keys() - {"weight", "weight_scale", "scale_weight", "input_scale", "scale_input"}
    if odd:
        raise CheckpointError(f"{layer.source}: {layer.name} has {', '.join(sorted(odd))}, which no FP8 weight has")
    scale = _one_of(layer, "weight_scale", "scale_weight")
    input_scale = _one_of(layer, "input_scale", "scale_input")
    made = weight if scale is None else replace(weight, scale=_weight_scale(layer, weight, scale))
    if input_scale is None:
        return made
    value = positive_number(layer, input_scale, "input_scale" if "input_scale" in layer.tensors else "scale_input")
    absent = value == ABSENT and "scale_input" in layer.tensors
    if absent or layer.declared.get("full_precision_matrix_mult"):
        return made
    return replace(made, input_scale=value)


def _one_of(layer: StoredLayer, *sides: str) -> TensorView | None:
    found = [layer.tensors[side] for side in sides if side in layer.tensors]
    if len(found) > 1:
        raise CheckpointError(f"{layer.source}: {layer.name} has {' and '.join(sides)}, which say the same; which one?")
    return found[0] if found else None


def _weight_scale(layer: StoredLayer, weight: View, scale: TensorView) -> View:
    assert isinstance(scale, View)
    rows = weight.shape[0] if weight.shape else 1
    if scale.num_items == 1:
        positive_number(layer, scale, "the weight's scale")
        return scale.reshaped(())
    if scale.dtype in _SCALES and scale.shape in ((rows,), (rows, 1)):
        numbers = scale.read()
        if not (bool(numbers.isfinite().all()) and bool((numbers > 0).all())):
            raise CheckpointError(f"{layer.source}: the weight's scales of {layer.name} are not all positive numbers")
        return scale.reshaped((rows,))
    raise CheckpointError(
        f"{layer.source}: {layer.name} has a scale {scale.dtype} {list(scale.shape)} for a weight "
        f"{list(weight.shape)}; one number is read, or one per row, in floating point"
    )


def positive_number(layer: StoredLayer, view: TensorView, what: str) -> float:
    """Return the one number that a tensor beside a weight holds; raise CheckpointError if it is not one above 0."""
    if view.num_items != 1 or view.dtype not in _SCALES:
        raise CheckpointError(
            f"{layer.source}: {what} of {layer.name} is {view.dtype} {list(view.shape)}, not one floating-point number"
        )
    value = float(view.read())
    if not (math.isfinite(value) and value > 0):
        raise CheckpointError(f"{layer.source}: {what} of {layer.name} is {value}, not a positive number")
    return value

"""Finds what computes a fused operator, and what is compiled for it."""

from __future__ import annotations

from collections.abc import Iterable

from ..definition import Definition
from ..picture_operators import PICTURE_OPERATORS
from .computing import Computing
from .device import KernelDevice
from .heads import compile_heads
from .kernels import Kernels
from .pictures import Pictures
from .tensors import Tensors
from .weight_only import WeightOnly
from .weights import NodeWeights


def computing(
    kernels: Kernels, definition: Definition, tensors: Tensors, weights: NodeWeights
) -> Computing | Pictures | WeightOnly:
    """Return what computes an operator.

    Args:
        kernels: What it is computed with.
        definition: The operator and its format.
        tensors: Its tensors in this call.
        weights: What its node keeps of its weights.
    """
    if definition.operator in PICTURE_OPERATORS:
        return Pictures(kernels, definition, tensors, weights)
    if definition.operator.narrow:
        return WeightOnly(kernels, tensors)
    return Computing(kernels, definition, tensors)


def compile_for(device: KernelDevice, definitions: Iterable[Definition], hidden: int, head_width: int) -> None:
    """Compile what operators launch for tokens and heads of these widths, before the first of them runs."""
    for definition in definitions:
        name, fp8 = definition.operator.name, definition.format.result
        if name in ("Modulate", "Gate", "GateModulate"):
            gated, normed = name != "Modulate", name != "Gate"
            device.function("modulate", HIDDEN=hidden, GATED=gated, NORMED=normed, FP8=fp8)
        elif name in ("Heads", "JointHeads"):
            compile_heads(device, head_width, hidden // head_width, fp8=fp8)
        if fp8:
            device.function("quantize")
        if definition.operator.narrow or (definition.format.branches and definition.format.operands):
            device.function("widen")

"""Finds what computes a fused operator."""

from __future__ import annotations

from ..definition import Definition
from ..picture_operators import PICTURE_OPERATORS
from .computing import Computing
from .kernels import Kernels
from .pictures import Pictures
from .tensors import Tensors
from .weights import NodeWeights


def computing(kernels: Kernels, definition: Definition, tensors: Tensors, weights: NodeWeights) -> Computing | Pictures:
    """Return what computes an operator.

    Args:
        kernels: What it is computed with.
        definition: The operator and its format.
        tensors: Its tensors in this call.
        weights: What its node keeps of its weights.
    """
    if definition.operator in PICTURE_OPERATORS:
        return Pictures(kernels, definition, tensors, weights)
    return Computing(kernels, definition, tensors)

"""Chooses the form that the denoiser's graph has."""

from __future__ import annotations

from ...engine.components import Operators
from ..configs import TransformerConfig
from .fused_operations import FusedOperations
from .operations import OnnxRuntimeOperations, Operations, StandardOperations


def operations(config: TransformerConfig, operators: Operators) -> Operations:
    """Return the form that was asked for."""
    if operators is Operators.FUSED:
        return FusedOperations(config)
    if operators is Operators.ONNXRUNTIME:
        return OnnxRuntimeOperations(config)
    return StandardOperations(config, single=operators is Operators.SINGLE)

"""Finds attention layers in a parsed network: the parser's bindings do not hand them out as what they are."""

from __future__ import annotations

from typing import Any


def mark_decomposable(trt: Any, network: Any) -> int:
    """Mark every IAttention as decomposable and return their number; TensorRT before 10.14 has none."""
    if not hasattr(trt, "IAttentionOutputLayer"):
        return 0
    count = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_OUTPUT:
            layer.__class__ = trt.IAttentionOutputLayer  # get_layer returns plain ILayers
            layer.attention.decomposable = True
            count += 1
    return count

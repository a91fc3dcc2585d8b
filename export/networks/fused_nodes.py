"""Makes nodes of fused operators while torch traces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import SymInt, Tensor, nn

from ...runtime.operators.catalogue import DOMAIN, OPERATORS, VERSION


def node(
    name: str, inputs: tuple[Tensor, ...], shapes: Sequence[Sequence[int | SymInt]], **attributes: int
) -> Sequence[Tensor]:
    """Return the outputs of a node of a fused operator, of the type of its first input."""
    assert len(shapes) == len(OPERATORS[name].outputs)
    return torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{name}",
        inputs,
        attrs={**attributes},
        dtypes=[inputs[0].dtype] * len(shapes),
        shapes=[tuple(shape) for shape in shapes],
        version=VERSION,
    )


def weights(layer: nn.Linear | nn.Conv2d | nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Return a layer's weight and bias."""
    assert layer.bias is not None
    return layer.weight, layer.bias


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer to tokens (b, s, c)."""
    if not torch.compiler.is_exporting():
        return layer(x)
    return node("Linear", (x, *weights(layer)), ((*x.shape[:2], layer.out_features),))[0]

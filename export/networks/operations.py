"""Defines the denoiser's steps around its matrix products, in the forms that its graph may take (`Operators`).

Queries, keys and values pass from `heads` and `normed_heads` over `join` and `rope` to `attend` in a layout of the
form's own.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...engine.components import Operators
from ..configs import TransformerConfig
from . import onnxruntime_operators as ort
from .layers import Attend, Rope, TanhGelu, modulate


class Operations(Protocol):
    """Defines what differs between the forms; all compute the same, but for rounding."""

    def modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Apply layer norm without learned weights, then `* (1 + scale) + shift`, as `layers.modulate` does."""
        ...

    def gelu(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """Apply tanh-GELU to the output of a linear layer."""
        ...

    def heads(self, linear: nn.Linear, x: Tensor) -> Tensor:
        """Return a projection of `x` (b, s, hidden) in the layout of attention."""
        ...

    def normed_heads(self, linear: nn.Linear, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        """Return a projection of `x` (b, s, hidden) in the layout of attention, with an RMS norm of each head."""
        ...

    def join(self, text: Tensor, image: Tensor) -> Tensor:
        """Join two sequences to one, in the layout of attention."""
        ...

    def attend(self) -> nn.Module:
        """Return a module for q, k, v in the layout of attention -> (b, s, hidden)."""
        ...

    def rope(self, cos: Tensor, sin: Tensor) -> Rope:
        """Return the rotation of q or k in the layout of attention, by rotary tables (s, head / 2) float32."""
        ...


class StandardOperations:
    """Uses operators of ONNX itself, single or decomposed; attention's layout is (b, h, s, d)."""

    def __init__(self, config: TransformerConfig, *, single: bool) -> None:
        self._head_width, self._single = config.head_width, single
        self._gelu = TanhGelu()

    def modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return modulate(x, shift, scale)

    def gelu(self, linear: nn.Linear, x: Tensor) -> Tensor:
        return self._gelu(linear(x))

    def heads(self, linear: nn.Linear, x: Tensor) -> Tensor:
        return rearrange(linear(x), "b s (h d) -> b h s d", d=self._head_width)

    def normed_heads(self, linear: nn.Linear, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        return norm(self.heads(linear, x))

    def join(self, text: Tensor, image: Tensor) -> Tensor:
        return torch.cat([text, image], dim=2)

    def attend(self) -> nn.Module:
        return Attend()

    def rope(self, cos: Tensor, sin: Tensor) -> Rope:
        return Rope(cos=cos, sin=sin, single_operator=self._single)


class OnnxRuntimeOperations:
    """Uses ONNX Runtime's own operators; attention's layout is (b, s, hidden), as the products give and take it."""

    def __init__(self, config: TransformerConfig) -> None:
        self._num_heads = config.num_heads

    def modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return ort.layer_norm(x, 1 + scale, shift, eps=1e-6)

    def gelu(self, linear: nn.Linear, x: Tensor) -> Tensor:
        return ort.bias_gelu(F.linear(x, linear.weight), linear.bias)

    def heads(self, linear: nn.Linear, x: Tensor) -> Tensor:
        return linear(x)

    def normed_heads(self, linear: nn.Linear, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        assert norm.eps is not None
        product = F.linear(x, linear.weight)
        heads = rearrange(product, "b s (h d) -> (b s) h d", h=self._num_heads)
        bias = rearrange(linear.bias, "(h d) -> h d", h=self._num_heads)
        normed = ort.bias_rms_norm(heads, bias, norm.weight, eps=norm.eps)
        return normed.reshape(product.shape)

    def join(self, text: Tensor, image: Tensor) -> Tensor:
        return torch.cat([text, image], dim=1)

    def attend(self) -> nn.Module:
        return ort.MultiHeadAttention(self._num_heads)

    def rope(self, cos: Tensor, sin: Tensor) -> Rope:
        return ort.FlatRope(cos=cos, sin=sin, single_operator=True, num_heads=self._num_heads)


def operations(config: TransformerConfig, operators: Operators) -> Operations:
    """Return the form that was asked for."""
    if operators is Operators.ONNXRUNTIME:
        return OnnxRuntimeOperations(config)
    return StandardOperations(config, single=operators is Operators.SINGLE)

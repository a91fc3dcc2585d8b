"""Wraps operators that ONNX Runtime has kernels for as functions: one node when traced, the same in torch elsewhere.

Most are of its domain com.microsoft. What each gains is in docs/decisions/007-onnxruntime-operators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import SymInt, Tensor, nn

from .layers import Rope

DOMAIN = "com.microsoft"


def _node(
    operator: str, inputs: tuple[Tensor, ...], eager: Callable[[], Tensor], *, version: int = 1, **attributes: Any
) -> Tensor:
    """Return the output of a node, which is like its first input; in torch, what `eager` computes."""
    if not torch.compiler.is_exporting():
        return eager()
    like = inputs[0]
    return torch.onnx.ops.symbolic(
        operator, inputs, attrs=attributes, dtype=like.dtype, shape=like.shape, version=version
    )


def layer_norm(x: Tensor, scale: Tensor, shift: Tensor, *, eps: float) -> Tensor:
    """Apply layer norm to (b, s, c) with a scale and shift (b, 1, c) for each picture."""

    def eager() -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=eps) * scale + shift

    return _node("LayerNormalization", (x, scale, shift), eager, version=17, axis=-1, epsilon=eps)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Apply GELU to x + bias: by tanh, but in bfloat16 by erf.

    There the two differ by a fraction of what rounding does, and ONNX Runtime's kernel by tanh, which rounds every
    intermediate, is both farther from tanh-GELU and slower.
    """
    by_erf = x.dtype == torch.bfloat16

    def eager() -> Tensor:
        return F.gelu(x + bias, approximate="none" if by_erf else "tanh")

    return _node(f"{DOMAIN}::{'BiasGelu' if by_erf else 'FastGelu'}", (x, bias), eager)


def bias_rms_norm(x: Tensor, bias: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    """Apply RMS norm to x + bias over the last axis: (n, h, d), (h, d), (d,) -> (n, h, d)."""

    def eager() -> Tensor:
        return F.rms_norm(x + bias, weight.shape, weight, eps)

    return _node(f"{DOMAIN}::SkipSimplifiedLayerNormalization", (x, bias, weight), eager, epsilon=eps)


class MultiHeadAttention(nn.Module):
    """Computes attention of (b, s, hidden) each -> (b, s, hidden); on GPUs from sm_90 it runs cuDNN's kernel."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        def eager() -> Tensor:
            heads = [rearrange(x, "b s (h d) -> b h s d", h=self.num_heads) for x in (q, k, v)]
            joint = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
            return rearrange(joint, "b h s d -> b s (h d)")

        return _node(f"{DOMAIN}::MultiHeadAttention", (q, k, v), eager, num_heads=self.num_heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatRope(Rope):
    """Rotates x (b, s, hidden) head by head, in its own type: the tables are rounded to it, sums are not.

    Queries are not scaled: `MultiHeadAttention` does it, in float32.
    """

    num_heads: int

    def rows(self, start: int | SymInt, stop: int | SymInt) -> FlatRope:
        return replace(self, cos=self.cos[start:stop], sin=self.sin[start:stop])

    def queries(self, x: Tensor) -> Tensor:
        return self.keys(x)

    def keys(self, x: Tensor) -> Tensor:
        tables = (table.to(x.dtype).unsqueeze(0).expand(x.shape[0], -1, -1) for table in (self.cos, self.sin))
        return torch.onnx.ops.rotary_embedding(x, *tables, interleaved=True, num_heads=self.num_heads)

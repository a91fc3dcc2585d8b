"""Defines the denoiser's steps around its matrix products, in the forms that its graph may take (`Operators`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import SymInt, Tensor, nn

from ..configs import TransformerConfig
from . import onnxruntime_operators as ort
from .layers import Attend, Rope, TanhGelu, modulate, within_fp16


@dataclass(frozen=True, slots=True)
class Stream:
    """Holds tokens (b, s, hidden), with a change that a layer made and that is not added yet.

    Attributes:
        tokens: The tokens before the change.
        change: (b, s, hidden), None for none.
        gate: (b, 1, hidden), what the change is multiplied by.
    """

    tokens: Tensor
    change: Tensor | None = None
    gate: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """Holds the layers that make queries, keys and values of tokens."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    norm_q: nn.RMSNorm
    norm_k: nn.RMSNorm


Heads = tuple[Tensor, Tensor, Tensor]
"""The queries, keys and values, in the layout of attention that a form has."""


class Operations(Protocol):
    """Defines what differs between the forms; all compute the same, but for rounding."""

    def settled(self, stream: Stream) -> Tensor:
        """Return the tokens with their change."""
        ...

    def settled_apart(self, stream: Stream) -> Tensor:
        """Return the same by operators of its own: what a runtime fuses around `settled` is as without it."""
        ...

    def modulate(self, stream: Stream, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens with their change, and layer norm of them, `* (1 + scale) + shift`."""
        ...

    def modulated_rows(
        self, tokens: Tensor, normed: Tensor, rows: slice, shift: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return some of the tokens, and the same of what `modulate` made of all, `normed`."""
        ...

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """Apply a linear layer."""
        ...

    def gelu(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """Apply tanh-GELU to the output of a linear layer."""
        ...

    def joint_heads(
        self, text_layers: Projections, text: Tensor, layers: Projections, image: Tensor, rope: Rope
    ) -> Heads:
        """Return heads of text and image tokens as one sequence."""
        ...

    def heads(self, layers: Projections, queried: Tensor, queried_rope: Rope, x: Tensor, rope: Rope) -> Heads:
        """Return queries of `queried`, keys and values of `x`."""
        ...

    def attend(self) -> nn.Module:
        """Return a module for queries, keys and values -> (b, s, hidden)."""
        ...

    def queries_of(self, q: Tensor, rows: slice) -> Tensor:
        """Return the queries of some tokens."""
        ...

    def mixed(self, attend: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Apply attention."""
        ...

    def joint_linear(
        self, text_layer: nn.Linear, layer: nn.Linear, joint: Tensor, length: int | SymInt
    ) -> tuple[Tensor, Tensor]:
        """Apply a layer to the first `length` tokens, and another to those after them."""
        ...

    def mixed_beside_gelu(
        self, attend: nn.Module, q: Tensor, k: Tensor, v: Tensor, layer: nn.Linear, x: Tensor
    ) -> Tensor:
        """Return (b, s, hidden + width): attention, and beside it tanh-GELU of a linear layer."""
        ...

    def rope(self, cos: Tensor, sin: Tensor) -> Rope:
        """Return the rotation of queries and keys by rotary tables (s, head / 2) float32."""
        ...


class Composed(ABC):
    """Computes the steps by torch's own, but for those that a form has in its own layout of attention."""

    @abstractmethod
    def _modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor: ...

    @abstractmethod
    def _values(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """Return a projection of `x` (b, s, hidden) in the layout of attention."""
        ...

    @abstractmethod
    def _normed(self, layer: nn.Linear, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        """Return a projection of `x` (b, s, hidden) in the layout of attention, with an RMS norm of each head."""
        ...

    @abstractmethod
    def _joined(self, text: Tensor, image: Tensor) -> Tensor:
        """Join two sequences to one, in the layout of attention."""
        ...

    @abstractmethod
    def gelu(self, layer: nn.Linear, x: Tensor) -> Tensor: ...

    def settled(self, stream: Stream) -> Tensor:
        if stream.change is None or stream.gate is None:
            return stream.tokens
        return within_fp16(stream.tokens + stream.gate * stream.change)

    def settled_apart(self, stream: Stream) -> Tensor:
        if stream.change is None or stream.gate is None:
            return stream.tokens
        return within_fp16(stream.change * stream.gate + stream.tokens)  # the other way round, or it would be shared

    def modulate(self, stream: Stream, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.settled(stream)
        return tokens, self._modulated(tokens, shift, scale)

    def modulated_rows(
        self, tokens: Tensor, normed: Tensor, rows: slice, shift: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        return tokens[:, rows], normed[:, rows]

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return layer(x)

    def joint_heads(
        self, text_layers: Projections, text: Tensor, layers: Projections, image: Tensor, rope: Rope
    ) -> Heads:
        k, v = self._normed(layers.k, layers.norm_k, image), self._values(layers.v, image)
        q = self._normed(layers.q, layers.norm_q, image)
        q = self._joined(self._normed(text_layers.q, text_layers.norm_q, text), q)
        k = self._joined(self._normed(text_layers.k, text_layers.norm_k, text), k)
        v = self._joined(self._values(text_layers.v, text), v)
        return rope.queries(q), rope.keys(k), v

    def heads(self, layers: Projections, queried: Tensor, queried_rope: Rope, x: Tensor, rope: Rope) -> Heads:
        k, v = self._normed(layers.k, layers.norm_k, x), self._values(layers.v, x)
        return queried_rope.queries(self._normed(layers.q, layers.norm_q, queried)), rope.keys(k), v

    def queries_of(self, q: Tensor, rows: slice) -> Tensor:
        return q[:, rows]

    def mixed(self, attend: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v)

    def joint_linear(
        self, text_layer: nn.Linear, layer: nn.Linear, joint: Tensor, length: int | SymInt
    ) -> tuple[Tensor, Tensor]:
        return text_layer(joint[:, :length]), layer(joint[:, length:])

    def mixed_beside_gelu(
        self, attend: nn.Module, q: Tensor, k: Tensor, v: Tensor, layer: nn.Linear, x: Tensor
    ) -> Tensor:
        return torch.cat([attend(q, k, v), self.gelu(layer, x)], dim=2)


class StandardOperations(Composed):
    """Uses operators of ONNX itself, single or decomposed; attention's layout is (b, h, s, d)."""

    def __init__(self, config: TransformerConfig, *, single: bool) -> None:
        self._head_width, self._single = config.head_width, single
        self._gelu = TanhGelu()

    def _modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return modulate(x, shift, scale)

    def gelu(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return self._gelu(layer(x))

    def _values(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return rearrange(layer(x), "b s (h d) -> b h s d", d=self._head_width)

    def _normed(self, layer: nn.Linear, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        return norm(self._values(layer, x))

    def _joined(self, text: Tensor, image: Tensor) -> Tensor:
        return torch.cat([text, image], dim=2)

    def queries_of(self, q: Tensor, rows: slice) -> Tensor:
        return q[:, :, rows]

    def attend(self) -> nn.Module:
        return Attend()

    def rope(self, cos: Tensor, sin: Tensor) -> Rope:
        return Rope(cos=cos, sin=sin, single_operator=self._single)


class OnnxRuntimeOperations(Composed):
    """Uses ONNX Runtime's own operators; attention's layout is (b, s, hidden), as the products give and take it."""

    def __init__(self, config: TransformerConfig) -> None:
        self._num_heads = config.num_heads

    def _modulated(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return ort.layer_norm(x, 1 + scale, shift, eps=1e-6)

    def gelu(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return ort.bias_gelu(F.linear(x, layer.weight), layer.bias)

    def _values(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return layer(x)

    def _normed(self, layer: nn.Linear, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        assert norm.eps is not None
        product = F.linear(x, layer.weight)
        heads = rearrange(product, "b s (h d) -> (b s) h d", h=self._num_heads)
        bias = rearrange(layer.bias, "(h d) -> h d", h=self._num_heads)
        normed = ort.bias_rms_norm(heads, bias, norm.weight, eps=norm.eps)
        return normed.reshape(product.shape)

    def _joined(self, text: Tensor, image: Tensor) -> Tensor:
        return torch.cat([text, image], dim=1)

    def attend(self) -> nn.Module:
        return ort.MultiHeadAttention(self._num_heads)

    def rope(self, cos: Tensor, sin: Tensor) -> Rope:
        return ort.FlatRope(cos=cos, sin=sin, single_operator=True, num_heads=self._num_heads)

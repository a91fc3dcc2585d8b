"""Writes the denoiser as fused operators: one node each when traced, the same in torch elsewhere."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import SymInt, Tensor, nn

from ..configs import TransformerConfig
from .fused_nodes import linear, node, weights
from .layers import Rope, modulate, scaled_queries
from .operations import Heads, Projections, StandardOperations, Stream


class FusedOperations(StandardOperations):
    """Uses the operators of `runtime.operators`; attention's layout is (b, s, hidden), as products give and take it.

    Each sum of steps is rounded once, as the operators' bodies say.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, single=True)
        self._num_heads = config.num_heads

    def settled(self, stream: Stream) -> Tensor:
        x, change, gate = stream.tokens, stream.change, stream.gate
        if change is None or gate is None:
            return x
        if torch.compiler.is_exporting():
            return node("Gate", (x, change, gate), (x.shape,))[0]
        return (x.float() + gate.float() * change.float()).to(x.dtype)

    def settled_apart(self, stream: Stream) -> Tensor:
        return self.settled(stream)

    def modulate(self, stream: Stream, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        x, change, gate = stream.tokens, stream.change, stream.gate
        if not torch.compiler.is_exporting():
            x = self.settled(stream)
            return x, modulate(x.float(), shift.float(), scale.float()).to(x.dtype)
        if change is None or gate is None:
            return x, node("Modulate", (x, shift, scale), (x.shape,))[0]
        tokens, normed = node("GateModulate", (x, change, gate, shift, scale), (x.shape, x.shape))
        return tokens, normed

    def modulated_rows(
        self, tokens: Tensor, normed: Tensor, rows: slice, shift: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        # computed once more: what is FP8 by then, no runtime takes rows of
        return self.modulate(Stream(tokens[:, rows]), shift, scale)

    def linear(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return linear(layer, x)

    def gelu(self, layer: nn.Linear, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().gelu(layer, x)
        return node("LinearGelu", (x, *weights(layer)), ((*x.shape[:2], layer.out_features),))[0]

    def joint_heads(
        self, text_layers: Projections, text: Tensor, layers: Projections, image: Tensor, rope: Rope
    ) -> Heads:
        both = ((text_layers, text), (layers, image))
        if torch.compiler.is_exporting():
            inputs = (text, image, *_norms(text_layers), *_norms(layers), rope.cos, rope.sin)
            length = text.shape[1] + image.shape[1]
            shape = (image.shape[0], length, image.shape[2])
            q, k, v = node("JointHeads", (*inputs, *_qkv(text_layers), *_qkv(layers)), (shape,) * 3)
            return q, k, v
        q = torch.cat([self._wide(one.q, one.norm_q, x) for one, x in both], dim=1)
        k = torch.cat([self._wide(one.k, one.norm_k, x) for one, x in both], dim=1)
        v = torch.cat([one.v(x) for one, x in both], dim=1)
        return _rotated(q, rope, scale=True).to(v.dtype), _rotated(k, rope).to(v.dtype), v

    def heads(self, layers: Projections, queried: Tensor, queried_rope: Rope, x: Tensor, rope: Rope) -> Heads:
        if torch.compiler.is_exporting():
            tables = (queried_rope.cos, queried_rope.sin, rope.cos, rope.sin)
            inputs = (queried, x, *_norms(layers), *tables, *_qkv(layers))
            q, k, v = node("Heads", inputs, (queried.shape, x.shape, x.shape))
            return q, k, v
        q, k = self._wide(layers.q, layers.norm_q, queried), self._wide(layers.k, layers.norm_k, x)
        return _rotated(q, queried_rope, scale=True).to(x.dtype), _rotated(k, rope).to(x.dtype), layers.v(x)

    def _wide(self, layer: nn.Linear, norm: nn.RMSNorm, x: Tensor) -> Tensor:
        """Return the RMS norm of each head of a projection, (b, s, h, d) float32."""
        heads = rearrange(layer(x), "b s (h d) -> b s h d", h=self._num_heads).float()
        return torch.nn.functional.rms_norm(heads, norm.weight.shape, norm.weight.float(), norm.eps)

    def queries_of(self, q: Tensor, rows: slice) -> Tensor:
        return q[:, rows]

    def mixed(self, attend: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return node("Attend", (q, k, v), (q.shape,), num_heads=self._num_heads)[0]
        return attend(*(rearrange(x, "b s (h d) -> b h s d", h=self._num_heads) for x in (q, k, v)))

    def joint_linear(
        self, text_layer: nn.Linear, layer: nn.Linear, joint: Tensor, length: int | SymInt
    ) -> tuple[Tensor, Tensor]:
        if not torch.compiler.is_exporting():
            return super().joint_linear(text_layer, layer, joint, length)
        batch, tokens, hidden = joint.shape
        inputs = (joint, *weights(text_layer), *weights(layer))
        shapes = ((batch, length, hidden), (batch, tokens - length, hidden))
        text, image = node("JointLinear", inputs, shapes, text_length=int(length))
        return text, image

    def mixed_beside_gelu(
        self, attend: nn.Module, q: Tensor, k: Tensor, v: Tensor, layer: nn.Linear, x: Tensor
    ) -> Tensor:
        if not torch.compiler.is_exporting():
            return torch.cat([self.mixed(attend, q, k, v), self.gelu(layer, x)], dim=2)
        shape = (*q.shape[:2], q.shape[2] + layer.out_features)
        inputs = (q, k, v, x, *weights(layer))
        return node("AttendBesideGelu", inputs, (shape,), num_heads=self._num_heads)[0]


def _rotated(x: Tensor, rope: Rope, *, scale: bool = False) -> Tensor:
    """Rotate heads (b, s, h, d) float32, and scale them if they are queries; give (b, s, h * d) float32."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rope.cos[:, None], rope.sin[:, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
    return (scaled_queries(turned) if scale else turned).flatten(-2)


def _qkv(layers: Projections) -> tuple[Tensor, ...]:
    return tuple(tensor for layer in (layers.q, layers.k, layers.v) for tensor in weights(layer))


def _norms(layers: Projections) -> tuple[Tensor, Tensor]:
    return layers.norm_q.weight, layers.norm_k.weight

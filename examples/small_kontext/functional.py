"""Computes the trained networks as functions of tensors, for training: one compilation serves all blocks of a kind.

They compute what diffusers' FluxTransformer2DModel and transformers' T5EncoderModel and CLIPTextModel do, of the same
parameters. Weights are the modules' own, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Weights = dict[str, Tensor]
Rotary = tuple[Tensor, Tensor]
"""The cos and sin of RoPE, (b, s, 1, head)."""


def weights_of(module: nn.Module) -> Weights:
    """Return a module's parameters by name."""
    return dict(module.named_parameters())


def linear(x: Tensor, weights: Weights, *names: str) -> Tensor:
    """Compute layers of one input as one product, outputs concatenated."""
    bias = None
    if f"{names[0]}.bias" in weights:
        bias = torch.cat([weights[f"{name}.bias"] for name in names])
    return functional.linear(x, torch.cat([weights[f"{name}.weight"] for name in names]), bias)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply layer norm without learned weights, then `* (1 + scale) + shift`."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def heads(x: Tensor, norm: Tensor, rotary: Rotary) -> Tensor:
    """Turn (b, s, heads * head) into (b, s, heads, head), normalised per head and rotated."""
    cos, sin = rotary
    head = cos.shape[-1]
    x = functional.rms_norm(x.unflatten(-1, (-1, head)).float(), (head,), norm.float(), 1e-6)
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-imaginary, real], dim=-1).flatten(-2) * sin


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Compute attention of (b, s, heads, head) each, `mask` (b, 1, 1, s) added -> (b, s, heads * head).

    The result is in the type of `value`.
    """
    parts = (part.to(value.dtype).transpose(1, 2) for part in (query, key, value))
    return functional.scaled_dot_product_attention(*parts, attn_mask=mask).transpose(1, 2).flatten(2)


def single_block(x: Tensor, modulation: Tensor, rotary: Rotary, mask: Tensor, weights: Weights) -> Tensor:
    """Compute FluxSingleTransformerBlock on the joint sequence (b, s, d), with `modulation` (b, d) after its SiLU."""
    width = x.shape[-1]
    shift, scale, gate = linear(modulation, weights, "norm.linear")[:, None].chunk(3, dim=-1)
    y = linear(modulated(x, shift, scale), weights, "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    query, key, value, mlp = y.split([width, width, width, y.shape[-1] - 3 * width], dim=-1)
    query = heads(query, weights["attn.norm_q.weight"], rotary)
    key = heads(key, weights["attn.norm_k.weight"], rotary)
    attended = attention(query, key, value.unflatten(-1, query.shape[2:]), mask)
    joint = torch.cat([attended, functional.gelu(mlp, approximate="tanh")], dim=-1)
    return x + gate * linear(joint, weights, "proj_out")


def double_block(
    context: Tensor, image: Tensor, modulation: Tensor, rotary: Rotary, mask: Tensor, weights: Weights
) -> tuple[Tensor, Tensor]:
    """Compute FluxTransformerBlock on text (b, t, d) and image tokens (b, s, d)."""
    length = context.shape[1]
    first, second = slice(length), slice(length, None)
    streams = (
        (context, first, "norm1_context", "attn.add_{}_proj", "attn.norm_added_{}", "attn.to_add_out", "ff_context"),
        (image, second, "norm1", "attn.to_{}", "attn.norm_{}", "attn.to_out.0", "ff"),
    )
    modulations, queries, keys, values = [], [], [], []
    for x, place, norm, projection, head_norm, *_ in streams:
        parts = linear(modulation, weights, f"{norm}.linear")[:, None].chunk(6, dim=-1)
        turn = rotary[0][:, place], rotary[1][:, place]
        y = linear(modulated(x, parts[0], parts[1]), weights, *(projection.format(name) for name in "qkv"))
        query, key, value = y.chunk(3, dim=-1)
        queries.append(heads(query, weights[f"{head_norm.format('q')}.weight"], turn))
        keys.append(heads(key, weights[f"{head_norm.format('k')}.weight"], turn))
        values.append(value.unflatten(-1, queries[0].shape[2:]))
        modulations.append(parts)
    attended = attention(torch.cat(queries, dim=1), torch.cat(keys, dim=1), torch.cat(values, dim=1), mask)
    results = []
    for (x, place, *_, out, mlp), (_, _, gate, shift, scale, mlp_gate) in zip(streams, modulations, strict=True):
        x = x + gate * linear(attended[:, place], weights, out)
        hidden = functional.gelu(linear(modulated(x, shift, scale), weights, f"{mlp}.net.0.proj"), approximate="tanh")
        results.append(x + mlp_gate * linear(hidden, weights, f"{mlp}.net.2"))
    return results[0], results[1]


def t5_layer(x: Tensor, bias: Tensor, weights: Weights) -> Tensor:
    """Compute T5Block with gated GELU on (b, t, d); `bias` (heads, t, t) is the positions'."""
    y = functional.rms_norm(x, x.shape[-1:], weights["layer.0.layer_norm.weight"], 1e-6)
    parts = linear(y, weights, *(f"layer.0.SelfAttention.{name}" for name in "qkv")).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (len(bias), -1)).transpose(1, 2) for part in parts)
    scores = torch.softmax((query @ key.mT).float() + bias.float(), dim=-1).to(value.dtype)
    x = x + linear((scores @ value).transpose(1, 2).flatten(2), weights, "layer.0.SelfAttention.o")
    y = functional.rms_norm(x, x.shape[-1:], weights["layer.1.layer_norm.weight"], 1e-6)
    gate, up = linear(y, weights, *(f"layer.1.DenseReluDense.wi_{i}" for i in (0, 1))).chunk(2, dim=-1)
    return x + linear(functional.gelu(gate, approximate="tanh") * up, weights, "layer.1.DenseReluDense.wo")


def clip_layer(x: Tensor, num_heads: int, weights: Weights) -> Tensor:
    """Compute CLIPEncoderLayer with quick GELU on (b, t, d)."""

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    projections = (f"self_attn.{name}_proj" for name in "qkv")
    parts = linear(norm(x, "layer_norm1"), weights, *projections).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in parts)
    attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    x = x + linear(attended.transpose(1, 2).flatten(2), weights, "self_attn.out_proj")
    y = linear(norm(x, "layer_norm2"), weights, "mlp.fc1")
    return x + linear(y * torch.sigmoid(1.702 * y), weights, "mlp.fc2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """Holds the four kinds of block, as they are or compiled."""

    double: Callable[..., tuple[Tensor, Tensor]] = double_block
    single: Callable[..., Tensor] = single_block
    t5: Callable[..., Tensor] = t5_layer
    clip: Callable[..., Tensor] = clip_layer

    @classmethod
    def compiled(cls) -> Functions:
        return cls(
            double=torch.compile(double_block, dynamic=False, fullgraph=True),
            single=torch.compile(single_block, dynamic=False, fullgraph=True),
            t5=torch.compile(t5_layer, dynamic=False, fullgraph=True),
            clip=torch.compile(clip_layer, dynamic=False, fullgraph=True),
        )

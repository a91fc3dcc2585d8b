"""Wraps transformers' T5 encoder behind this project's component border."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, T5EncoderModel
from transformers import T5Config as TransformersT5Config
from transformers.models.t5.modeling_t5 import T5Attention, T5DenseGatedActDense, T5LayerNorm

from ..configs import T5Config
from .layers import TanhGelu

ATTENTION = "kontext_trt"


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute scaled dot product attention with a contiguous result.

    What it returns otherwise depends on the CPU's kernel, and tracing records reshapes that hold for that layout alone.
    Every token is attended to, so there is no mask but the bias of relative positions.
    """
    assert attention_mask is None
    bias, scale = options["position_bias"], options["scaling"]
    result = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    return result.clone(memory_format=torch.contiguous_format).transpose(1, 2).contiguous(), None


def _use_rms_norm(model: nn.Module, config: T5Config) -> None:
    """Put torch's RMS norm in the place of T5's handwritten one: the same formula, and one operator in a graph."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, T5LayerNorm):
                setattr(module, name, nn.RMSNorm(config.width, eps=config.norm_eps))


def _use_one_gelu(model: nn.Module) -> None:
    """Put torch's GELU in the place of T5's handwritten one: the same formula, and its constants are not rounded."""
    for module in model.modules():
        if isinstance(module, T5DenseGatedActDense):
            module.act = TanhGelu()


def position_bucket(
    relative_position: Tensor, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> Tensor:
    """Return the number of the learned bias of each relative position, (n, n) int64, looked up by offset.

    Near offsets have a bucket each, far ones share buckets that widen logarithmically up to `max_distance`; half of
    the buckets are for positions ahead. The results are transformers', which takes the logarithm of every offset, of
    zero too, and for each of n x n positions. The table has 2n - 1 entries, and is a constant in a graph.
    Source: T5Attention._relative_position_bucket, whose arguments these are.
    """
    assert bidirectional, "an encoder attends both ways"
    one_way = num_buckets // 2
    exact = one_way // 2
    length = relative_position.shape[-1]
    offsets = torch.arange(1 - length, length, device=relative_position.device)
    distances = offsets.abs()
    widening = torch.log(distances.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    far = (exact + (widening * (one_way - exact)).to(torch.long)).clamp(max=one_way - 1)
    table = torch.where(distances < exact, distances, far) + (offsets > 0).to(torch.long) * one_way
    return F.embedding(relative_position + (length - 1), table[:, None])[..., 0]  # one Gather; indexing takes more


def _use_position_table(model: nn.Module) -> None:
    """Make attention look its buckets up by `position_bucket`."""
    for module in model.modules():
        if isinstance(module, T5Attention):
            module._relative_position_bucket = position_bucket  # pyright: ignore[reportAttributeAccessIssue]


def t5_encoder(config: T5Config) -> T5EncoderModel:
    """Return transformers' encoder of this configuration."""
    arguments: dict[str, Any] = {
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "d_kv": config.head_width,
        "d_ff": config.mlp_width,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.num_buckets,
        "relative_attention_max_distance": config.max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "n_positions": config.length,
        "feed_forward_proj": "gated-gelu",
    }
    return T5EncoderModel(TransformersT5Config(**arguments))


class T5(nn.Module):
    """Computes `input_ids` (b, 512) int32 -> `text` (b, 512, width) float32.

    There is no mask: padding is attended to, as in FLUX.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        AttentionInterface.register(ATTENTION, _attention)
        self.model = t5_encoder(config)
        self.model.set_attn_implementation(ATTENTION)
        _use_rms_norm(self.model, config)
        _use_one_gelu(self.model)
        _use_position_table(self.model)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids).last_hidden_state.to(torch.float32)

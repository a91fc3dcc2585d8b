"""Wraps transformers' CLIP text model, pooled output only, behind this project's component border."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ..configs import ClipConfig


def clip_text_model(config: ClipConfig) -> CLIPTextModel:
    """Return transformers' text model of this configuration."""
    arguments: dict[str, Any] = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.length,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "eos_token_id": config.eos_id,
        "bos_token_id": None,
        "pad_token_id": None,
        "attn_implementation": "sdpa",
    }
    return CLIPTextModel(CLIPTextConfig(**arguments))


class Clip(nn.Module):
    """Computes `input_ids` (b, 77) int32 -> `pooled` (b, width) float32."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.model = clip_text_model(config)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        return self.model(input_ids=input_ids, position_ids=positions).pooler_output.to(torch.float32)

"""Wraps transformers' CLIP text model, pooled output only, behind this project's component border."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, CLIPTextConfig, CLIPTextModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.clip.modeling_clip import CLIPMLP

from ..configs import ClipConfig
from .layers import InFloat32, scaled_queries

ATTENTION = "kontext_trt_clip"


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute attention as transformers does with torch's operator, but scale queries by themselves."""
    assert options["scaling"] == query.shape[-1] ** -0.5
    options["scaling"] = 1.0
    scaled = scaled_queries(query.to(torch.float32)).to(query.dtype)
    return sdpa_attention_forward(module, scaled, key, value, attention_mask, **options)


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
        AttentionInterface.register(ATTENTION, _attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        self.model = clip_text_model(config)
        self.model.set_attn_implementation(ATTENTION)
        for module in self.model.modules():
            if isinstance(module, CLIPMLP):
                module.activation_fn = InFloat32(module.activation_fn)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        return self.model(input_ids=input_ids, position_ids=positions).pooler_output.to(torch.float32)

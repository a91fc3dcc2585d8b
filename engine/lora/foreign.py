"""Tells LoRA files of other models by the names of their layers, to say what they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

# in this order: each by a name that the others do not have
_OTHERS = (
    ("SDXL", r"lora_te2_text_model_|(input|output)_blocks_[0-9]+_1_transformer_blocks_[1-9]|add_embedding"),
    (
        "Stable Diffusion 1, 2 or XL (a U-Net)",
        r"(^|[._])(down_blocks|up_blocks|mid_block|input_blocks|output_blocks)[._]",
    ),
    ("Stable Diffusion 3", r"(^|[._])joint_blocks[._]|(^|[._])transformer_blocks[._][0-9]+[._]attn2[._]"),
    (
        "FLUX.2",
        r"to_qkv_mlp_proj|double_stream_modulation|single_stream_modulation|transformer_blocks[._][0-9]+[._]ff(_context)?"
        r"[._]linear_(in|out)",
    ),
    ("Chroma", r"distilled_guidance_layer"),
    ("Qwen-Image", r"transformer_blocks[._][0-9]+[._](img|txt)_(mlp[._]net|mod[._]1)"),
    ("HunyuanVideo", r"individual_token_refiner|double_blocks\.[0-9]+\.(img|txt)_attn_"),
    ("Wan", r"(^|[._])blocks[._][0-9]+[._](self_attn|cross_attn|ffn)[._]"),
    ("Z-Image or Lumina", r"(^|[._])(layers|noise_refiner|context_refiner)[._][0-9]+[._](attention|feed_forward)[._]"),
    ("LTX-Video or another video model", r"(^|[._])transformer_blocks[._][0-9]+[._]attn1[._]"),
    ("a language model", r"(^|\.)model\.layers\.[0-9]+\.(self_attn|mlp)\."),
)
_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in _OTHERS)


def foreign_model(names: Iterable[str]) -> str | None:
    """Return the model whose layers tensors are named after, None if it is not known."""
    names = list(names)
    return next((model for model, pattern in _PATTERNS if any(map(pattern.search, names))), None)

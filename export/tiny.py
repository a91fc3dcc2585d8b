"""Writes a tiny random FLUX.1 Kontext checkpoint, as diffusers itself saves one: for the demo and for tests.

It has every layer of the real one and none of its knowledge: its pictures are patterns, not edits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers import decoders as token_decoders
from transformers import CLIPTokenizer, T5Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..engine.sizes import Size
from .checkpoint.open import SIZES_FILE
from .configs import ClipConfig, ModelConfig, T5Config, TransformerConfig, VaeConfig
from .networks.clip import clip_text_model
from .networks.t5 import t5_encoder
from .networks.vae import autoencoder

TINY_SIZES = ((96, 192), (112, 144), (128, 128), (144, 112), (192, 96))


def clip_tokenizer() -> CLIPTokenizer:
    """Return CLIP's kind of tokenizer over single bytes: 512 symbols and the two markers."""
    symbols = list(bytes_to_unicode().values())
    vocabulary = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    """Return T5's kind of tokenizer over single characters of printable ASCII."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((character, -4.0) for character in characters),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = token_decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5Tokenizer(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_ids=0,
        model_max_length=512,
    )


def tiny_config(head_width: int = 32) -> ModelConfig:
    """Return the configuration of the tiny model.

    It has 2 double and 2 single blocks of 2 heads, a VAE of 32 to 64 channels, text encoders of 2 layers.
    """
    height_axis = 7 * head_width // 16
    return ModelConfig(
        transformer=TransformerConfig(
            num_double_blocks=2,
            num_single_blocks=2,
            num_heads=2,
            head_width=head_width,
            text_width=64,
            pooled_width=64,
            rope_axes=(head_width - 2 * height_axis, height_axis, height_axis),
        ),
        vae=VaeConfig(block_channels=(32, 32, 64, 64), layers_per_block=1),
        clip=ClipConfig(vocabulary=len(clip_tokenizer()), width=64, mlp_width=128, num_layers=2, num_heads=1),
        t5=T5Config(vocabulary=len(t5_tokenizer()), width=64, head_width=32, mlp_width=128, num_layers=2, num_heads=2),
    )


def random_pipeline(config: ModelConfig, clip: CLIPTokenizer, t5: T5Tokenizer, *, seed: int = 0) -> FluxKontextPipeline:
    """Return diffusers' own pipeline of a configuration, with weights drawn from `seed`."""
    torch.manual_seed(seed)
    network = config.transformer
    arguments: dict[str, Any] = {
        "in_channels": network.channels,
        "num_layers": network.num_double_blocks,
        "num_single_layers": network.num_single_blocks,
        "attention_head_dim": network.head_width,
        "num_attention_heads": network.num_heads,
        "joint_attention_dim": network.text_width,
        "pooled_projection_dim": network.pooled_width,
        "guidance_embeds": True,
        "axes_dims_rope": network.rope_axes,
    }
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=autoencoder(config.vae),
        text_encoder=clip_text_model(config.clip),
        tokenizer=clip,
        text_encoder_2=t5_encoder(config.t5),
        tokenizer_2=t5,
        transformer=FluxTransformer2DModel(**arguments),
    )


def tiny_pipeline(seed: int = 0, *, head_width: int = 32) -> FluxKontextPipeline:
    """Return the tiny model's pipeline, with weights drawn from `seed`."""
    return random_pipeline(tiny_config(head_width), clip_tokenizer(), t5_tokenizer(), seed=seed)


def write_tiny_checkpoint(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
    """Save the tiny pipeline as a diffusers folder, with small sizes of its own."""
    pipeline = tiny_pipeline(seed)
    save_checkpoint(pipeline, folder, TINY_SIZES, dtype=dtype)


def save_checkpoint(
    pipeline: FluxKontextPipeline, folder: Path, sizes: Sequence[Size], *, dtype: torch.dtype = torch.float32
) -> None:
    """Save a pipeline as a diffusers folder in `dtype`, with the (width, height) it was trained at beside it."""
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        torch.nn.Module.to(part, dtype=dtype)  # diffusers' own `to` warns of layers to keep in float32; there are none
    pipeline.save_pretrained(folder)
    (folder / SIZES_FILE).write_text(json.dumps(sizes))

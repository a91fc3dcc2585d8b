"""Makes the small model's networks: FLUX.1 Kontext's modules, with small numbers in their configurations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import FluxKontextPipeline
from torch import nn
from transformers import CLIPTokenizer, T5Tokenizer

from ...export.configs import ClipConfig, ModelConfig, T5Config, TransformerConfig, VaeConfig
from ...export.tiny import random_pipeline
from .optimizer import FlatAdam
from .vocabulary import CLIP_LENGTH, T5_LENGTH, corpus, train_clip_tokenizer, train_t5_tokenizer

CORPUS_SENTENCES = 6000
FIRST_LOG_VARIANCE = -3.0
"""The log variance of the autoencoder's latents before training.

It means less noise than signal, so that the autoencoder learns from the first step.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Describes what the small model and its smoke test's still smaller one differ in."""

    num_double_blocks: int = 2
    num_single_blocks: int = 8
    num_heads: int = 6
    head_width: int = 32
    t5_width: int = 192
    t5_layers: int = 3
    clip_width: int = 128
    clip_layers: int = 2
    vae_channels: tuple[int, int, int, int] = (32, 48, 64, 96)


SMALL = Scale()
SMOKE = Scale(
    num_double_blocks=1,
    num_single_blocks=1,
    num_heads=2,
    t5_width=64,
    t5_layers=1,
    clip_width=64,
    clip_layers=1,
    vae_channels=(16, 16, 32, 32),
)


def model_config(scale: Scale, clip: CLIPTokenizer, t5: T5Tokenizer) -> ModelConfig:
    """Return configurations whose vocabularies are the tokenizers'."""
    height_axis = 7 * scale.head_width // 16
    return ModelConfig(
        transformer=TransformerConfig(
            num_double_blocks=scale.num_double_blocks,
            num_single_blocks=scale.num_single_blocks,
            num_heads=scale.num_heads,
            head_width=scale.head_width,
            text_width=scale.t5_width,
            pooled_width=scale.clip_width,
            rope_axes=(scale.head_width - 2 * height_axis, height_axis, height_axis),
        ),
        vae=VaeConfig(block_channels=scale.vae_channels, layers_per_block=1, norm_groups=4),
        clip=ClipConfig(
            vocabulary=len(clip),
            width=scale.clip_width,
            mlp_width=4 * scale.clip_width,
            num_layers=scale.clip_layers,
            num_heads=scale.clip_width // 64,
            length=CLIP_LENGTH,
        ),
        t5=T5Config(
            vocabulary=len(t5),
            width=scale.t5_width,
            head_width=32,
            mlp_width=5 * scale.t5_width // 2,
            num_layers=scale.t5_layers,
            num_heads=scale.t5_width // 32,
            length=T5_LENGTH,
        ),
    )


def new_tokenizers() -> tuple[CLIPTokenizer, T5Tokenizer]:
    """Return tokenizers that are trained on training's sentences."""
    sentences = corpus(CORPUS_SENTENCES)
    return train_clip_tokenizer(sentences), train_t5_tokenizer(sentences)


def new_pipeline(scale: Scale, clip: CLIPTokenizer, t5: T5Tokenizer, seed: int) -> FluxKontextPipeline:
    """Return untrained networks in float32.

    Blocks begin as identities: their modulation and the last layer are zero.
    """
    pipeline = random_pipeline(model_config(scale, clip, t5), clip, t5, seed=seed)
    transformer: nn.Module = pipeline.transformer
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and (name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear"))):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    for last in (pipeline.transformer.norm_out.linear, pipeline.transformer.proj_out):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    bias = pipeline.text_encoder_2.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    bias.data.copy_(near_first(*bias.shape))
    encoded = pipeline.vae.encoder.conv_out.bias.shape[0] // 2
    nn.init.constant_(pipeline.vae.encoder.conv_out.bias[encoded:].detach(), FIRST_LOG_VARIANCE)
    for part in (pipeline.vae, *text_networks(pipeline)):
        part.eval()  # T5's dropout would be the only one
    return pipeline


def near_first(num_buckets: int, num_heads: int) -> torch.Tensor:
    """Return T5's bias of distances before training, (buckets, heads).

    Every other head looks back and the others ahead, each pair less far than the next, as in ALiBi (Press et al.,
    2022).

    T5 does not scale its scores, which are soon so large that a bias that begins near 0 is never found, and an encoder
    without positions is a bag of words: "a red circle and a blue star" is then "a blue circle and a red star".
    """
    half = num_buckets // 2
    distances = torch.arange(half, dtype=torch.float32)
    slopes = 4.0 * 2.0 ** -torch.arange(num_heads // 2 * 2, dtype=torch.float32).div(2, rounding_mode="floor")
    bias = torch.full((num_buckets, num_heads), 0.0)
    for head, slope in enumerate(slopes):
        near, far = (slice(half), slice(half, None)) if head % 2 == 0 else (slice(half, None), slice(half))
        bias[near, head], bias[far, head] = -slope * distances, -slope * half
    return bias


def text_networks(pipeline: FluxKontextPipeline) -> nn.ModuleList:
    """Return what learns in the second stage: transformer, CLIP's and T5's encoders."""
    return nn.ModuleList([pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2])


def flow_optimizer(pipeline: FluxKontextPipeline, dtype: torch.dtype) -> FlatAdam:
    """Return the optimizer of the second stage.

    It is Muon for the matrices inside blocks, Adam for what leads in, out and modulates.
    """
    return FlatAdam(text_networks(pipeline), dtype, orthogonal=_is_hidden, average_decay=0.9995)


def _is_hidden(name: str) -> bool:
    inside = any(
        f".{blocks}." in name for blocks in ("transformer_blocks", "single_transformer_blocks", "block", "layers")
    )
    others = ("norm", "bias", "SelfAttention.q", "SelfAttention.k")  # T5 does not scale its scores
    return inside and name.endswith(".weight") and not any(other in name for other in others)


def num_parameters(module: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def device_of(name: str) -> torch.device:
    """Return a device by name; "auto" is CUDA where there is one.

    Raises:
        ValueError: The device is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device; train with --device cpu")
    return torch.device(name)

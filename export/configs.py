"""Describes the networks' shapes, which are read from a checkpoint's config or inferred from its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from ..engine.documents import Count, Extent, Fraction, Layers, Positive, Text
from ..engine.errors import CheckpointError

FOLDERS = {"transformer": "transformer", "vae": "vae", "clip": "text_encoder", "t5": "text_encoder_2"}
"""The folders of a diffusers checkpoint, by the part of the checkpoint that each holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Describes the FLUX.1 transformer: defaults are FLUX.1 Kontext [dev], widths count features.

    Raises:
        CheckpointError: The rope axes are odd or do not sum to the head width, or a kind of block is missing.
    """

    num_double_blocks: Layers = 19
    num_single_blocks: Layers = 38
    num_heads: Extent = 24
    head_width: Extent = 128
    channels: Extent = 64
    text_width: Extent = 4096
    pooled_width: Extent = 768
    mlp_ratio: Annotated[float, Meta(gt=0.0, le=64.0)] = 4.0
    rope_axes: tuple[Extent, Extent, Extent] = (16, 56, 56)
    rope_theta: Positive = 10_000.0

    def __post_init__(self) -> None:
        if sum(self.rope_axes) != self.head_width or any(axis % 2 for axis in self.rope_axes):
            raise CheckpointError(
                f"rope axes {self.rope_axes} must be even and sum to the head width, which is {self.head_width}"
            )
        if self.num_single_blocks < 1 or self.num_double_blocks < 1:
            raise CheckpointError(
                f"a FLUX transformer has at least one double and one single block, this one has "
                f"{self.num_double_blocks} and {self.num_single_blocks}"
            )

    @property
    def hidden(self) -> int:
        return self.num_heads * self.head_width

    @property
    def mlp_width(self) -> int:
        return int(self.hidden * self.mlp_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """Describes the KL autoencoder; its latents are `(z - shift) * scaling`."""

    block_channels: Annotated[tuple[Extent, ...], Meta(min_length=1, max_length=8)] = (128, 256, 512, 512)
    latent_channels: Extent = 16
    layers_per_block: Layers = 2
    norm_groups: Extent = 32
    scaling: Fraction = 0.3611
    shift: Fraction = 0.1159

    @property
    def downscale(self) -> int:
        """The number of pixels that a latent spans along one side (8 in FLUX.1)."""
        return 2 ** (len(self.block_channels) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Describes CLIP's text model.

    `eos_id` 2 is the old convention: the pooled token is the one with the largest id.
    """

    vocabulary: Extent = 49408
    width: Extent = 768
    mlp_width: Extent = 3072
    num_layers: Layers = 12
    num_heads: Extent = 12
    length: Extent = 77
    activation: Text = "quick_gelu"
    norm_eps: Positive = 1e-5
    eos_id: Count = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class T5Config:
    """Describes T5's encoder, version 1.1 (gated GELU)."""

    vocabulary: Extent = 32128
    width: Extent = 4096
    head_width: Extent = 64
    mlp_width: Extent = 10240
    num_layers: Layers = 24
    num_heads: Extent = 64
    num_buckets: Extent = 32
    max_distance: Extent = 128
    norm_eps: Positive = 1e-6
    length: Extent = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Describes the four networks of a checkpoint."""

    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    t5: T5Config = field(default_factory=T5Config)

"""Computes a step that is cached: the transformer's first block and final layer, and between them a kept residual.

The first block computes target tokens only; text and reference tokens are what these attend to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import SymInt, Tensor, nn

from ...engine.components import Operators
from ..configs import TransformerConfig
from .denoiser import FeedForward, StreamsAttention, moved_latents
from .forms import operations
from .layers import DOUBLE_VECTORS, Rope, split_vectors, within_fp16
from .operations import Operations, Stream


class TargetAttention(StreamsAttention):
    """Computes the attention of a double block for some of the image's tokens alone."""

    def forward(self, text: Tensor, image: Tensor, rope: Rope, count: int | SymInt) -> Tensor:
        """Return (b, count, hidden), of the image's first `count` tokens."""
        out, start = cast("nn.Linear", self.to_out[0]), text.shape[1]
        q, k, v = self.form.joint_heads(self.text_projections, text, self.projections, image, rope)
        wanted = self.form.queries_of(q, slice(start, start + count))
        return self.form.linear(out, self.form.mixed(self.attend, wanted, k, v))


class TargetBlock(nn.Module):
    """Computes a double block for some of the image's tokens; it has the weights of `DoubleBlock` that this takes."""

    def __init__(self, config: TransformerConfig, form: Operations) -> None:
        super().__init__()
        self.form = form
        self.attn = TargetAttention(config, form)
        self.ff = FeedForward(config.hidden, config.mlp_width, form)

    def forward(
        self, text: Tensor, image: Tensor, vectors: Sequence[Tensor], rope: Rope, count: int | SymInt
    ) -> Tensor:
        """Return (b, count, hidden): the image's first `count` tokens after the block."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors[: DOUBLE_VECTORS // 2]
        text_shift, text_scale = vectors[DOUBLE_VECTORS // 2 : DOUBLE_VECTORS // 2 + 2]
        modulate = self.form.modulate
        _, normed_text = modulate(Stream(text), text_shift, text_scale)
        _, normed_image = modulate(Stream(image), shift, scale)
        change = self.attn(normed_text, normed_image, rope, count)
        tokens, normed = modulate(Stream(image[:, :count], change, gate), mlp_shift, mlp_scale)
        return self.form.settled(Stream(tokens, self.ff(normed), mlp_gate))


class CachedDenoiser(nn.Module):
    """Computes one step of the flow from the residual that the last whole step gave.

    Inputs: those of `Denoiser`, and `residual` (b, n, hidden), what its blocks but the first added.

    Outputs: `next_latents` and `velocity`, as `Denoiser` gives them.
    """

    def __init__(self, config: TransformerConfig, *, operators: Operators = Operators.DECOMPOSED) -> None:
        super().__init__()
        self.form = form = operations(config, operators)
        self.x_embedder = nn.Linear(config.channels, config.hidden)
        self.transformer_blocks = nn.ModuleList([TargetBlock(config, form)])
        self.proj_out = nn.Linear(config.hidden, config.channels)

    def forward(
        self,
        latents: Tensor,
        text_tokens: Tensor,
        reference_tokens: Tensor,
        modulation: Tensor,
        cos: Tensor,
        sin: Tensor,
        step_size: Tensor,
        previous_velocity: Tensor,
        velocity_weights: Tensor,
        keep: Tensor,
        clean: Tensor,
        noise: Tensor,
        next_sigma: Tensor,
        residual: Tensor,
    ) -> tuple[Tensor, Tensor]:
        rope, vectors, count = self.form.rope(cos, sin), split_vectors(modulation), latents.shape[1]
        embedded = self.x_embedder(latents.to(self.x_embedder.bias.dtype))
        image = torch.cat([embedded, reference_tokens], dim=1)
        first = self.transformer_blocks[0](text_tokens, image, vectors[:DOUBLE_VECTORS], rope, count)
        scale, shift = vectors[-2:]
        normed = self.form.modulate(Stream(within_fp16(first + residual)), shift, scale)[1]
        velocity = self.proj_out(normed).to(torch.float32)
        moved = moved_latents(
            latents, velocity, step_size, previous_velocity, velocity_weights, keep, clean, noise, next_sigma
        )
        return moved, velocity

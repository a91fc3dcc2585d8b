"""Computes what runs in every step of the flow: the transformer's blocks and the Euler update.

The joint sequence is [text, target, reference]. The last single block and the final layer compute target tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ...engine.components import Operators
from ..configs import TransformerConfig
from .forms import operations
from .layers import DOUBLE_VECTORS, SINGLE_VECTORS, Rope, split_vectors, within_fp16
from .operations import Operations, Projections, Stream


class Gelu(nn.Module):
    """Holds a linear layer that tanh-GELU follows."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, width)


class FeedForward(nn.Module):
    """Applies two linear layers with tanh-GELU between.

    `net` has diffusers' numbering, whose second entry is a dropout.
    """

    def __init__(self, hidden: int, width: int, form: Operations) -> None:
        super().__init__()
        self.form = form
        self.net = nn.ModuleList([Gelu(hidden, width), nn.Identity(), nn.Linear(width, hidden)])

    def forward(self, x: Tensor) -> Tensor:
        gelu, _, linear = cast("tuple[Gelu, nn.Identity, nn.Linear]", tuple(self.net))
        return self.form.linear(linear, self.form.gelu(gelu.proj, x))


class Attention(nn.Module):
    """Holds the projections of one stream, with per-head RMS norm on queries and keys."""

    def __init__(self, config: TransformerConfig, form: Operations) -> None:
        super().__init__()
        hidden = config.hidden
        self.to_q, self.to_k, self.to_v = (nn.Linear(hidden, hidden) for _ in range(3))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.head_width, eps=1e-6) for _ in range(2))
        self.attend = form.attend()

    @property
    def projections(self) -> Projections:
        return Projections(q=self.to_q, k=self.to_k, v=self.to_v, norm_q=self.norm_q, norm_k=self.norm_k)


class StreamsAttention(Attention):
    """Holds what a double block's attention needs for the image: both streams have weights of their own."""

    def __init__(self, config: TransformerConfig, form: Operations) -> None:
        super().__init__(config, form)
        hidden = config.hidden
        self.form = form
        self.to_out = nn.ModuleList([nn.Linear(hidden, hidden)])
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(hidden, hidden) for _ in range(3))
        self.norm_added_q, self.norm_added_k = (nn.RMSNorm(config.head_width, eps=1e-6) for _ in range(2))

    @property
    def text_projections(self) -> Projections:
        return Projections(
            q=self.add_q_proj,
            k=self.add_k_proj,
            v=self.add_v_proj,
            norm_q=self.norm_added_q,
            norm_k=self.norm_added_k,
        )


class JointAttention(StreamsAttention):
    """Computes the attention of a double block, for both streams."""

    def __init__(self, config: TransformerConfig, form: Operations) -> None:
        super().__init__(config, form)
        self.to_add_out = nn.Linear(config.hidden, config.hidden)

    def forward(self, text: Tensor, image: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
        out = cast("nn.Linear", self.to_out[0])
        q, k, v = self.form.joint_heads(self.text_projections, text, self.projections, image, rope)
        joint = self.form.mixed(self.attend, q, k, v)
        return self.form.joint_linear(self.to_add_out, out, joint, text.shape[1])


class DoubleBlock(nn.Module):
    """Computes a double block: joint attention, then a feed-forward layer for each of text and image."""

    def __init__(self, config: TransformerConfig, form: Operations) -> None:
        super().__init__()
        self.form = form
        self.attn = JointAttention(config, form)
        self.ff = FeedForward(config.hidden, config.mlp_width, form)
        self.ff_context = FeedForward(config.hidden, config.mlp_width, form)

    def forward(self, text: Stream, image: Stream, vectors: Sequence[Tensor], rope: Rope) -> tuple[Stream, Stream]:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = vectors[: DOUBLE_VECTORS // 2]
        text_shift, text_scale, text_gate, text_mlp_shift, text_mlp_scale, text_mlp_gate = vectors[
            DOUBLE_VECTORS // 2 :
        ]
        modulate = self.form.modulate
        text_tokens, normed_text = modulate(text, text_shift, text_scale)
        image_tokens, normed_image = modulate(image, shift, scale)
        text_change, image_change = self.attn(normed_text, normed_image, rope)
        image_tokens, normed = modulate(Stream(image_tokens, image_change, gate), mlp_shift, mlp_scale)
        image = Stream(image_tokens, self.ff(normed), mlp_gate)
        text_tokens, normed = modulate(Stream(text_tokens, text_change, text_gate), text_mlp_shift, text_mlp_scale)
        return Stream(text_tokens, self.ff_context(normed), text_mlp_gate), image


class SingleBlock(nn.Module):
    """Computes a single block: attention and feed-forward layer side by side over the joint sequence."""

    def __init__(self, config: TransformerConfig, form: Operations) -> None:
        super().__init__()
        hidden = config.hidden
        self.form = form
        self.attn = Attention(config, form)
        self.proj_mlp = nn.Linear(hidden, config.mlp_width)
        self.proj_out = nn.Linear(hidden + config.mlp_width, hidden)

    def forward(self, stream: Stream, vectors: Sequence[Tensor], rope: Rope, wanted: slice | None = None) -> Stream:
        """Return a stream of (b, s, hidden) from the same, or of only the `wanted` tokens of it."""
        form, (shift, scale, gate) = self.form, vectors
        tokens, normed = form.modulate(stream, shift, scale)
        queried, queried_rope = normed, rope
        if wanted is not None:
            tokens, queried = form.modulated_rows(tokens, normed, wanted, shift, scale)
            queried_rope = rope.rows(wanted.start, wanted.stop)
        q, k, v = form.heads(self.attn.projections, queried, queried_rope, normed, rope)
        both = form.mixed_beside_gelu(self.attn.attend, q, k, v, self.proj_mlp, queried)
        return Stream(tokens, form.linear(self.proj_out, both), gate)


class Denoiser(nn.Module):
    """Computes one step of the flow; it runs N times per request.

    Inputs: `latents` (b, n, channels) float32; `text_tokens` (b, 512, hidden), `reference_tokens` (b, m, hidden) and
    `modulation` (b, k, hidden) as `Conditioner` gives them; `cos` and `sin` (512 + n + m, head / 2) float32;
    `step_size` (1,) float32, the next sigma minus this one; `previous_velocity` (b, n, channels) float32;
    `velocity_weights` (2,) float32, what this step's velocity and the previous one count in the update; `keep` in 0..1,
    `clean` and `noise`, each (b, n, channels) float32, and `next_sigma` (1,) float32: where `keep` is 1, the next
    latents are the clean ones with that much of the noise. Weights of 1 and 0 with a `keep` of zeros give the plain
    Euler update, bit for bit, if what they leave out is finite.

    Outputs: `next_latents` (b, n, channels) float32; `velocity` (b, n, channels) float32, the network's own; with
    `gives_residual` also `residual` (b, n, hidden), what all blocks but the first add to the target tokens.

    For bundles of schema 2 it takes nothing after `step_size`, and gives `next_latents` alone.

    Without `prune_last_block` the last block computes every token: the same result for more work, for measuring what
    that saves.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        operators: Operators = Operators.DECOMPOSED,
        prune_last_block: bool = True,
        gives_residual: bool = False,
    ) -> None:
        super().__init__()
        self.prune_last_block, self.gives_residual = prune_last_block, gives_residual
        self.form = form = operations(config, operators)
        self.x_embedder = nn.Linear(config.channels, config.hidden)
        self.transformer_blocks = nn.ModuleList(DoubleBlock(config, form) for _ in range(config.num_double_blocks))
        self.single_transformer_blocks = nn.ModuleList(
            SingleBlock(config, form) for _ in range(config.num_single_blocks)
        )
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
        previous_velocity: Tensor | None = None,
        velocity_weights: Tensor | None = None,
        keep: Tensor | None = None,
        clean: Tensor | None = None,
        noise: Tensor | None = None,
        next_sigma: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        form, rope, vectors = self.form, self.form.rope(cos, sin), split_vectors(modulation)
        embedded = self.x_embedder(latents.to(self.x_embedder.bias.dtype))
        image, text = Stream(torch.cat([embedded, reference_tokens], dim=1)), Stream(text_tokens)
        after_first = image
        for number, double in enumerate(self.transformer_blocks):
            text, image = double(text, image, vectors[:DOUBLE_VECTORS], rope)
            vectors = vectors[DOUBLE_VECTORS:]
            after_first = after_first if number else image
        joint = Stream(torch.cat([form.settled(text), form.settled(image)], dim=1))
        start = text_tokens.shape[1]
        target = slice(start, start + latents.shape[1])
        *others, last = self.single_transformer_blocks
        for single in others:
            joint = single(joint, vectors[:SINGLE_VECTORS], rope)
            vectors = vectors[SINGLE_VECTORS:]
        joint = last(joint, vectors[:SINGLE_VECTORS], rope, wanted=target if self.prune_last_block else None)
        if not self.prune_last_block:
            joint = Stream(form.settled(joint)[:, target])
        scale, shift = vectors[SINGLE_VECTORS:]
        velocity = self.proj_out(form.modulate(joint, shift, scale)[1]).to(torch.float32)
        if velocity_weights is None:
            return latents + step_size * velocity
        assert previous_velocity is not None
        assert keep is not None
        assert clean is not None
        assert noise is not None
        assert next_sigma is not None
        moved = moved_latents(
            latents, velocity, step_size, previous_velocity, velocity_weights, keep, clean, noise, next_sigma
        )
        if not self.gives_residual:
            return moved, velocity
        first = form.settled_apart(after_first)[:, : latents.shape[1]]
        return moved, velocity, within_fp16(form.settled_apart(joint) - first)


def moved_latents(
    latents: Tensor,
    velocity: Tensor,
    step_size: Tensor,
    previous_velocity: Tensor,
    velocity_weights: Tensor,
    keep: Tensor,
    clean: Tensor,
    noise: Tensor,
    next_sigma: Tensor,
) -> Tensor:
    """Return what a step moves latents to, as `Denoiser` says; all are float32."""
    weighted = velocity_weights[0] * velocity + velocity_weights[1] * previous_velocity
    kept = (1 - next_sigma) * clean + next_sigma * noise  # FluxKontextInpaintPipeline, at the end of a step
    return keep * kept + (1 - keep) * (latents + step_size * weighted)

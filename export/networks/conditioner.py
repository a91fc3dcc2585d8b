"""Computes everything of the transformer that does not depend on the noisy latents.

Module and parameter names here and in `denoiser.py` are those of diffusers' `FluxTransformer2DModel`, but for
`norm_out`: its two halves are two layers, because BFL and diffusers store them in opposite order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..configs import TransformerConfig
from .layers import DOUBLE_VECTORS, SINGLE_VECTORS, join_vectors, sinusoid

TIMESTEP_WIDTH = 256
TIMESTEP_SCALE = 1000.0


class Embedder(nn.Module):
    """Applies two linear layers with SiLU between: how timestep, guidance and pooled text become a vector."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class TimeTextEmbed(nn.Module):
    """Embeds timesteps, guidance and pooled text: (N,), (b,) and (b, pooled) to one vector per step and request.

    The result is (N, b, hidden).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.timestep_embedder = Embedder(TIMESTEP_WIDTH, config.hidden)
        self.guidance_embedder = Embedder(TIMESTEP_WIDTH, config.hidden)
        self.text_embedder = Embedder(config.pooled_width, config.hidden)

    def forward(self, timesteps: Tensor, guidance: Tensor, pooled: Tensor) -> Tensor:
        dtype = self.text_embedder.linear_1.bias.dtype
        time = self.timestep_embedder(sinusoid(timesteps * TIMESTEP_SCALE, TIMESTEP_WIDTH).to(dtype))
        strength = self.guidance_embedder(sinusoid(guidance * TIMESTEP_SCALE, TIMESTEP_WIDTH).to(dtype))
        return (time[:, None] + strength[None]) + self.text_embedder(pooled.to(dtype))[None]


class AdaptiveNorm(nn.Module):
    """Applies the linear layer of an adaptive norm: (N, b, hidden) to (N, b, vectors, hidden)."""

    def __init__(self, hidden: int, vectors: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.linear = nn.Linear(hidden, vectors * hidden)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.linear(x), "n b (k hidden) -> n b k hidden", hidden=self.hidden)


class DoubleModulation(nn.Module):
    """Computes a double block's vectors, the image's before the text's: (N, b, hidden) to (N, b, 12, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm1 = AdaptiveNorm(hidden, DOUBLE_VECTORS // 2)
        self.norm1_context = AdaptiveNorm(hidden, DOUBLE_VECTORS // 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm1(x), self.norm1_context(x)], dim=2)


class SingleModulation(nn.Module):
    """Computes a single block's vectors: (N, b, hidden) to (N, b, 3, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = AdaptiveNorm(hidden, SINGLE_VECTORS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class FinalModulation(nn.Module):
    """Computes the final layer's scale and shift: (N, b, hidden) to (N, b, 2, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.scale = nn.Linear(hidden, hidden)
        self.shift = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.scale(x), self.shift(x)], dim=2)


class Conditioner(nn.Module):
    """Computes what the denoiser needs in every step of a request; it runs once per request.

    Inputs, all float32: `timesteps` (N,) in 0..1, `guidance` (b,), `pooled` (b, pooled), `text` (b, 512, text),
    `reference` (b, m, channels), m = 0 for text to image.

    Outputs, in the transformer's own type: `modulation` (N, b, k, hidden), `text_tokens` (b, 512, hidden),
    `reference_tokens` (b, m, hidden).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.time_text_embed = TimeTextEmbed(config)
        self.context_embedder = nn.Linear(config.text_width, hidden)
        self.x_embedder = nn.Linear(config.channels, hidden)
        self.transformer_blocks = nn.ModuleList(DoubleModulation(hidden) for _ in range(config.num_double_blocks))
        self.single_transformer_blocks = nn.ModuleList(
            SingleModulation(hidden) for _ in range(config.num_single_blocks)
        )
        self.norm_out = FinalModulation(hidden)

    def forward(
        self, timesteps: Tensor, guidance: Tensor, pooled: Tensor, text: Tensor, reference: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = self.x_embedder.bias.dtype
        vector = F.silu(self.time_text_embed(timesteps, guidance, pooled))
        users = [*self.transformer_blocks, *self.single_transformer_blocks, self.norm_out]
        modulation = join_vectors([user(vector) for user in users])
        return modulation, self.context_embedder(text.to(dtype)), self.x_embedder(reference.to(dtype))

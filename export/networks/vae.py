"""The KL autoencoder's two halves: diffusers' modules with everything around them in the graph.

Pixels go in and out as uint8; scaling, normalisation of latents, packing and rounding happen inside.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from ..configs import VaeConfig


def _autoencoder(config: VaeConfig) -> AutoencoderKL:
    levels = len(config.block_channels)
    return AutoencoderKL(
        block_out_channels=config.block_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


class VaeEncoder(nn.Module):
    """`image` (b, H, W, 3) uint8 -> `reference` (b, H/16 * W/16, 4 * latent channels) float32, normalised and packed."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _autoencoder(config).encoder

    def forward(self, image: Tensor) -> Tensor:
        # cast first: TensorRT takes uint8 at a network's border only, and there into a cast
        pixels = rearrange(image.to(torch.float32), "b h w c -> b c h w") / 255
        moments = self.encoder((2 * pixels - 1).to(self.encoder.conv_in.weight.dtype))
        mean = moments[:, : self.config.latent_channels]
        latents = (mean - self.config.shift) * self.config.scaling
        return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2).to(torch.float32)


class VaeDecoder(nn.Module):
    """`latents` (b, h, w, 4 * latent channels) float32, packed -> `image` (b, 16 h, 16 w, 3) uint8."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = _autoencoder(config).decoder

    def forward(self, latents: Tensor) -> Tensor:
        unpacked = rearrange(latents, "b h w (c p q) -> b c (h p) (w q)", p=2, q=2)
        scaled = unpacked.to(self.decoder.conv_in.weight.dtype) / self.config.scaling + self.config.shift
        pixels = (self.decoder(scaled).to(torch.float32) / 2 + 0.5).clamp(0, 1)
        return rearrange((pixels * 255).round(), "b c h w -> b h w c").to(torch.uint8)

"""Trains the first stage: the autoencoder, on pictures alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor

KL_WEIGHT = 5e-4
"""The weight of the prior, beside the squared error of pixels in -1..1, both as means.

It bounds what noise the decoder has to bear: an error of that size in latents costs about as much as half of it in
pixels.
"""

Encode = Callable[[Tensor], Tensor]


def to_network(pictures: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert uint8 (b, H, W, 3) to (b, 3, H, W) in -1..1."""
    return rearrange(pictures.to(dtype), "b h w c -> b c h w") / 127.5 - 1


def to_pictures(pixels: Tensor) -> Tensor:
    """Convert (b, 3, H, W) in -1..1 to uint8 (b, H, W, 3)."""
    scaled = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
    return rearrange(scaled.round(), "b c h w -> b h w c").to(torch.uint8)


def autoencoder_losses(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared error of the decoded sample, and the divergence from a standard normal.

    Both are means over elements, float32.
    """
    mean, log_variance = vae.encoder(pixels).float().chunk(2, dim=1)
    log_variance = log_variance.clamp(-20, 10)
    sampled = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    decoded = vae.decoder(sampled.to(pixels.dtype))
    error = (decoded.float() - pixels.float()).square().mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return error, divergence


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor, shift: float, scaling: float) -> Tensor:
    """Encode uint8 (b, H, W, 3) as normalised packed latents (b, n, 64) in the autoencoder's type."""
    dtype = vae.encoder.conv_in.weight.dtype
    mean = vae.encoder(to_network(pictures, dtype)).chunk(2, dim=1)[0]
    return rearrange((mean - shift) * scaling, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, size: tuple[int, int], shift: float, scaling: float) -> Tensor:
    """Decode packed latents (b, n, 64) of pictures of (width, height) to uint8 (b, H, W, 3)."""
    height = size[1] // 16
    unpacked = rearrange(latents, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=2, q=2)
    dtype = vae.decoder.conv_in.weight.dtype
    return to_pictures(vae.decoder((unpacked / scaling + shift).to(dtype)))


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, pictures: Tensor) -> tuple[float, float]:
    """Return the (shift, scaling) that bring the latents of uint8 pictures (b, H, W, 3) to mean 0 and deviation 1."""
    latents = encode(vae, pictures, 0.0, 1.0).float()
    return float(latents.mean()), float(1 / latents.std())


def psnr(one: Tensor, other: Tensor) -> float:
    """Return the PSNR of uint8 pictures, in dB; 99 where they are equal."""
    error = (one.float() - other.float()).square().mean().clamp(min=255**2 * 10**-9.9)
    return float(10 * torch.log10(255**2 / error))

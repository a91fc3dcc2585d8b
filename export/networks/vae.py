"""Wraps the two halves of diffusers' KL autoencoder, with everything around them in the graph.

Pixels go in and out as uint8; scaling, normalisation of latents, packing and rounding happen inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.upsampling import Upsample2D
from einops import rearrange
from torch import Tensor, nn

from ...engine.components import Operators
from ..configs import VaeConfig
from . import fused_vae
from .layers import scaled_queries


def autoencoder(config: VaeConfig) -> AutoencoderKL:
    """Return diffusers' autoencoder of this configuration."""
    levels = len(config.block_channels)
    arguments: dict[str, Any] = {
        "block_out_channels": config.block_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_groups,
        "scaling_factor": config.scaling,
        "shift_factor": config.shift,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    return AutoencoderKL(**arguments)


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then applies a convolution.

    Pixels are repeated in float32, for which every runtime has a kernel: ONNX Runtime on CUDA has none for bfloat16.
    """

    def __init__(self, original: Upsample2D) -> None:
        super().__init__()
        assert original.conv is not None
        self.conv = original.conv

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return self.conv(F.interpolate(x.to(torch.float32), scale_factor=2.0, mode="nearest").to(x.dtype))


def _attend(
    attention: Attention,
    x: Tensor,
    encoder_hidden_states: None = None,
    attention_mask: None = None,
    temb: None = None,
) -> Tensor:
    """Compute an attention block (b, c, h, w) -> the same, as diffusers does, but scale queries by themselves.

    The other arguments are those that diffusers passes; the autoencoder has none of them.
    """
    assert attention.group_norm is not None
    assert attention.to_out is not None
    assert attention.residual_connection
    assert attention.rescale_output_factor == 1
    tokens = rearrange(attention.group_norm(x), "b c h w -> b (h w) c")
    q, k, v = (
        rearrange(linear(tokens), "b s (n d) -> b n s d", n=attention.heads)
        for linear in (attention.to_q, attention.to_k, attention.to_v)
        if linear is not None
    )
    scaled = scaled_queries(q.to(torch.float32)).to(q.dtype)
    mixed = rearrange(F.scaled_dot_product_attention(scaled, k, v, scale=1.0), "b n s d -> b s (n d)")
    return x + rearrange(attention.to_out[0](mixed), "b (h w) c -> b c h w", h=x.shape[2])


def _use_scaled_queries(network: nn.Module) -> None:
    """Make the attention of diffusers' encoder or decoder ours."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.set_processor(_attend)  # pyright: ignore[reportArgumentType] a function does


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Says where channels are: in patterns of a picture, of one by patches of 2x2, and as an axis."""

    picture: str
    patches: str
    channels: int


_FIRST = _Layout(picture="b c h w", patches="b c (h p) (w q)", channels=1)
_LAST = _Layout(picture="b h w c", patches="b (h p) (w q) c", channels=3)


class VaeEncoder(nn.Module):
    """Computes `image` (b, H, W, 3) uint8 -> `reference` (b, H/16 * W/16, 4 * latent channels) float32, packed."""

    def __init__(self, config: VaeConfig, *, operators: Operators = Operators.SINGLE) -> None:
        super().__init__()
        self.config = config
        self.encoder = autoencoder(config).encoder
        self._fused = operators is Operators.FUSED
        self._layout = _LAST if self._fused else _FIRST
        if not self._fused:
            _use_scaled_queries(self.encoder)

    def forward(self, image: Tensor) -> Tensor:
        # cast first: TensorRT takes uint8 at a network's border only, and there into a cast
        pixels = rearrange(image.to(torch.float32), f"b h w c -> {self._layout.picture}") / 255
        scaled = (2 * pixels - 1).to(self.encoder.conv_in.weight.dtype)
        moments = fused_vae.encode(self.encoder, scaled) if self._fused else self.encoder(scaled)
        mean = moments.narrow(self._layout.channels, 0, self.config.latent_channels)
        latents = (mean - self.config.shift) * self.config.scaling
        return rearrange(latents, f"{self._layout.patches} -> b (h w) (c p q)", p=2, q=2).to(torch.float32)


class VaeDecoder(nn.Module):
    """Computes pictures from packed latents.

    Input: `latents` (b, h, w, 4 * latent channels) float32, packed. Outputs: `image` (b, 16 h, 16 w, 3) uint8 and
    `mean` (b,) float32.

    `mean` is that of the values before they are rounded into the picture, where NaN and infinity cannot be seen any
    more: it is finite only if every one of them was.
    """

    def __init__(self, config: VaeConfig, *, operators: Operators = Operators.SINGLE) -> None:
        super().__init__()
        self.config = config
        self.decoder = autoencoder(config).decoder
        self._fused = operators is Operators.FUSED
        self._layout = _LAST if self._fused else _FIRST
        if self._fused:
            return
        _use_scaled_queries(self.decoder)
        for name, module in list(self.decoder.named_modules()):
            if isinstance(module, Upsample2D):
                self.decoder.set_submodule(name, Upsample(module))

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        unpacked = rearrange(latents, f"b h w (c p q) -> {self._layout.patches}", p=2, q=2)
        scaled = unpacked.to(self.decoder.conv_in.weight.dtype) / self.config.scaling + self.config.shift
        decoded = fused_vae.decode(self.decoder, scaled) if self._fused else self.decoder(scaled)
        pixels = decoded.to(torch.float32) / 2 + 0.5
        image = rearrange((pixels.clamp(0, 1) * 255).round(), f"{self._layout.picture} -> b h w c").to(torch.uint8)
        return image, pixels.mean(dim=(1, 2, 3))

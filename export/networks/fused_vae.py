"""Writes the halves of diffusers' autoencoder as fused operators, in (b, h, w, c) from end to end.

Source: diffusers `autoencoders/vae.py`, `resnet.py`, `unets/unet_2d_blocks.py`; its modules hold the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D
from einops import rearrange
from torch import Tensor, nn

from .fused_nodes import linear, node, weights
from .layers import scaled_queries

_EPSILON = 1e-6
"""The epsilon of every group norm, which the operators have by themselves."""


def encode(encoder: Encoder, x: Tensor) -> Tensor:
    """Return the moments (b, h / 8, w / 8, 2 * latent channels) of pixels (b, h, w, 3)."""
    x = _convolution(encoder.conv_in, x)
    for block in _modules(encoder.down_blocks):
        x = _resnets(block.resnets, x)
        for downsampler in block.downsamplers or ():
            x = _halving(downsampler.conv, x)
    return _end(encoder, _middle(encoder.mid_block, x))


def decode(decoder: Decoder, x: Tensor) -> Tensor:
    """Return pixels (b, 8 h, 8 w, 3) of latents (b, h, w, latent channels)."""
    x = _middle(decoder.mid_block, _convolution(decoder.conv_in, x))
    for block in _modules(decoder.up_blocks):
        x = _resnets(block.resnets, x)
        for upsampler in block.upsamplers or ():
            x = _convolution(upsampler.conv, _upsample(x))
    return _end(decoder, x)


def _modules(modules: Any) -> Iterable[Any]:
    """Return the modules of a list, whose kinds torch does not know."""
    return modules


def _middle(block: UNetMidBlock2D | None, x: Tensor) -> Tensor:
    assert block is not None
    first, second = block.resnets
    (attention,) = block.attentions
    return _resnets([second], _attend(attention, _resnets([first], x)))  # pyright: ignore[reportArgumentType]


def _end(half: Encoder | Decoder, x: Tensor) -> Tensor:
    assert isinstance(half.conv_norm_out, nn.GroupNorm)
    return _convolution(half.conv_out, _group_norm(half.conv_norm_out, x, silu=True))


def _resnets(blocks: Iterable[ResnetBlock2D], x: Tensor) -> Tensor:
    for block in blocks:
        assert block.output_scale_factor == 1
        hidden = _convolution(block.conv1, _group_norm(block.norm1, x, silu=True))
        hidden = _group_norm(block.norm2, hidden, silu=True)
        residual = x if block.conv_shortcut is None else _point_convolution(block.conv_shortcut, x)
        x = _convolution(block.conv2, hidden, residual)
    return x


def _attend(block: Attention, x: Tensor) -> Tensor:
    assert block.group_norm is not None
    assert block.to_out is not None
    tokens = _group_norm(block.group_norm, x).flatten(1, 2)
    q, k, v = (linear(layer, tokens) for layer in (block.to_q, block.to_k, block.to_v) if layer is not None)
    q = scaled_queries(q.unflatten(2, (block.heads, -1)).to(torch.float32)).flatten(2).to(q.dtype)
    if torch.compiler.is_exporting():
        mixed = node("Attend", (q, k, v), (q.shape,), num_heads=block.heads)[0]
    else:
        q, k, v = (rearrange(one, "b s (n d) -> b n s d", n=block.heads) for one in (q, k, v))
        mixed = rearrange(F.scaled_dot_product_attention(q, k, v, scale=1.0), "b n s d -> b s (n d)")
    return x + linear(block.to_out[0], mixed).reshape(x.shape)  # pyright: ignore[reportArgumentType]


def _group_norm(norm: nn.GroupNorm, x: Tensor, *, silu: bool = False) -> Tensor:
    assert norm.eps == _EPSILON
    if torch.compiler.is_exporting():
        name = "GroupNormSilu" if silu else "GroupNorm"
        return node(name, (x, *weights(norm)), (x.shape,), num_groups=norm.num_groups)[0]
    weight, bias = (one.to(torch.float32) for one in weights(norm))
    planes = rearrange(x.to(torch.float32), "b h w c -> b c h w")
    normed = rearrange(F.group_norm(planes, norm.num_groups, weight, bias, norm.eps), "b c h w -> b h w c")
    return (F.silu(normed) if silu else normed).to(x.dtype)


def _convolution(layer: nn.Conv2d, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Apply a 3x3 convolution, and add a residual."""
    assert (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
    if torch.compiler.is_exporting():
        inputs, shape = (x, *weights(layer)), (*x.shape[:3], layer.out_channels)
        if residual is None:
            return node("Convolution", inputs, (shape,))[0]
        return node("ConvolutionAdd", (*inputs, residual), (shape,))[0]
    y = _applied(layer, x)
    return y if residual is None else y + residual


def _halving(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 3x3 convolution of stride 2 to an even picture, with zeros below and right of it."""
    assert (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (2, 2), (0, 0))
    if torch.compiler.is_exporting():
        shape = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2, layer.out_channels)
        return node("ConvolutionHalving", (x, *weights(layer)), (shape,))[0]
    return _applied(layer, F.pad(x, (0, 0, 0, 1, 0, 1)))


def _point_convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1x1 convolution."""
    assert (layer.kernel_size, layer.stride, layer.padding) == ((1, 1), (1, 1), (0, 0))
    if torch.compiler.is_exporting():
        return node("PointConvolution", (x, *weights(layer)), ((*x.shape[:3], layer.out_channels),))[0]
    return _applied(layer, x)


def _applied(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return rearrange(layer(rearrange(x, "b h w c -> b c h w")), "b c h w -> b h w c")


def _upsample(x: Tensor) -> Tensor:
    """Double height and width by repeating pixels."""
    if torch.compiler.is_exporting():
        batch, height, width, channels = x.shape
        return node("UpsampleNearest", (x,), ((batch, 2 * height, 2 * width, channels),))[0]
    return x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)

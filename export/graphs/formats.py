"""Computes FP8 and NVFP4 as arithmetic on torch tensors.

FP8 is E4M3 without infinities, values up to 448. NVFP4 is E2M1, values up to 6, in blocks of 16 along the input axis: a
block has an E4M3 scale, a tensor one float32 scale over those. Source: OCP 8-bit Floating Point Specification 1.0, and
NVIDIA's description of NVFP4 in TensorRT's documentation of quantized types.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...runtime.operators.body import SAMPLED_TOKENS
from ..fp4 import BLOCK, FP4_VALUES, fp4_values

FP8_MAX = 448.0
FP4_MAX = 6.0
_EXPONENT = 0x7F800000
"""The bits of a float32 that hold its exponent."""


def round_up(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `scale` in `dtype`, not smaller than it was: a scale rounded down would clip the value it was made for.

    Scales of 0, of tensors that hold nothing but zeros, become 1.
    """
    rounded = scale.to(dtype)
    up = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    rounded = torch.where(rounded.to(scale.dtype) < scale, up, rounded)
    return torch.where(scale == 0, torch.ones_like(rounded), rounded)


def to_fp8(x: Tensor) -> Tensor:
    """Return the nearest E4M3 values, ties to even; beyond 448 they saturate."""
    return x.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)


def fp8_scale(amax: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the scale that brings `amax` to FP8's largest value."""
    return round_up(amax.to(torch.float32) / FP8_MAX, dtype)


def fake_fp8(x: Tensor, scale: Tensor | float) -> Tensor:
    """Return what `x` is after quantization with `scale` and back: computed in float32, in the type of `x`."""
    return (to_fp8(x.to(torch.float32) / scale).to(torch.float32) * scale).to(x.dtype)


def smoothed(keys: Tensor, *, every: bool = False) -> Tensor:
    """Return keys (..., s, d) in float32, less their mean over every (s / 64)th token, or `every` one.

    Softmax does not see what all keys have in common, and FP8 rounds less without it. Source: Zhang et al.,
    SageAttention (arXiv 2410.02367), whose mean is over all tokens.
    """
    wide = keys.to(torch.float32)
    step = 1 if every else max(keys.shape[-2] // SAMPLED_TOKENS, 1)
    return wide - wide[..., ::step, :].mean(-2, keepdim=True)


def hadamard(x: Tensor, factor: float | None = None) -> Tensor:
    """Return heads (..., d) in float32, multiplied by Hadamard's matrix over sqrt(d); d is a power of two up to 256.

    Done to queries and keys it leaves their products as they are, and spreads what is large in one channel over all.
    The matrix is multiplied by `factor`, if there is one, instead of 1 / sqrt(d). Source: Ashkboos et al., QuaRot
    (arXiv 2404.00456).
    """
    width = x.shape[-1]
    bits = torch.arange(width, device=x.device)[:, None] >> torch.arange(8, device=x.device) & 1
    shared = (bits[:, None] & bits).sum(-1)
    signs = (1 - 2 * (shared & 1)).to(torch.float32)
    return x.to(torch.float32) @ (signs / width**0.5 if factor is None else signs * factor)


def turning_factors(width: int) -> tuple[float, float]:
    """Return what Hadamard's matrix is multiplied by for queries and for keys: powers of two whose product is 1 / d."""
    bits = width.bit_length() - 1
    return 2.0 ** -(bits // 2), 2.0 ** -(bits - bits // 2)


def round_to_fp4(x: Tensor) -> Tensor:
    """Return the nearest E2M1 values of float32 `x`, ties to the even code; beyond 6 they saturate, and -0 is kept."""
    magnitude = x.abs()
    power = (magnitude.view(torch.int32) & _EXPONENT).view(torch.float32)  # of two, the largest in the magnitude
    spacing = power.clamp(1, 4) / 2
    return ((magnitude / spacing).round() * spacing).clamp(max=FP4_MAX).copysign(x)  # round() takes ties to even


def fp4_codes(x: Tensor) -> Tensor:
    """Return the codes 0 to 15 (uint8) of what `round_to_fp4` gives."""
    values = round_to_fp4(x)
    table = torch.tensor(FP4_VALUES, device=x.device)
    return (torch.bucketize(values.abs(), table) + 8 * torch.signbit(values)).to(torch.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvfp4Tensor:
    """Holds a tensor (..., k) in NVFP4.

    Attributes:
        codes: (..., k) uint8, one code per value.
        scales: (..., k / 16) E4M3.
        scale: () float32.
    """

    codes: Tensor
    scales: Tensor
    scale: Tensor

    def values(self) -> Tensor:
        """Return the values (..., k) in float32."""
        blocks = fp4_values(self.codes).unflatten(-1, (-1, BLOCK))
        return (blocks * (self.scales.to(torch.float32) * self.scale).unsqueeze(-1)).flatten(-2)


def nvfp4_scale(amax: Tensor) -> Tensor:
    """Return the tensor scale with which block scales reach at most E4M3's 448."""
    return round_up(amax.to(torch.float32) / (FP4_MAX * FP8_MAX), torch.float32)


def to_nvfp4(x: Tensor, scale: Tensor) -> Nvfp4Tensor:
    """Quantize `x` (..., k), k a multiple of 16, with the tensor scale given.

    Each block's own scale is made for its largest value.
    """
    scaled, scales = _in_block_steps(x, scale)
    return Nvfp4Tensor(codes=fp4_codes(scaled).flatten(-2), scales=scales, scale=scale)


def fake_nvfp4(x: Tensor, scale: Tensor) -> Tensor:
    """Return what `x` is after NVFP4 and back, in its own type: `to_nvfp4(x, scale).values()` without the codes."""
    scaled, scales = _in_block_steps(x, scale)
    return (round_to_fp4(scaled) * (scales.to(torch.float32) * scale).unsqueeze(-1)).flatten(-2).to(x.dtype)


def _in_block_steps(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` in blocks (..., k / 16, 16), divided by their steps, and the block scales (..., k / 16).

    The values are float32, the scales E4M3.
    """
    blocks = x.to(torch.float32).unflatten(-1, (-1, BLOCK))
    scales = to_fp8(blocks.abs().amax(-1) / FP4_MAX / scale)
    steps = (scales.to(torch.float32) * scale).unsqueeze(-1)
    return blocks / torch.where(steps > 0, steps, torch.inf), scales

"""Draws the starting noise: a seed gives what torch's CPU generator draws for diffusers, without torch.

Source: PyTorch `aten/src/ATen/native/cpu/DistributionTemplates.h` (`normal_fill`): Mersenne twister, 24-bit uniforms,
Box-Muller on blocks of 16. Values agree to 4e-7; 85 % are bit-equal, the rest differ in the last place, because
PyTorch's vectorised logarithm, sine and cosine round differently from NumPy's.

In 16-bit types PyTorch 2.13 draws these values rounded, and so does this module. PyTorch 2.11 draws others there, which
have nothing to do with a seed's float32 noise: with it, diffusers in bf16 makes another picture of the same seed.
"""

from __future__ import annotations

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ...engine.components import Precision
from ...engine.sizes import Grid
from ..inputs.prepared import PreparedRequest

BLOCK = 16


def standard_normal(seed: int, count: int) -> NDArray[np.float32]:
    """Draw what `torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed))` does.

    Raises ValueError for a count that is no multiple of 16.
    """
    if count % BLOCK:
        raise ValueError(f"{count} values asked for, a multiple of {BLOCK} is needed")
    generator = np.random.RandomState(int(seed) & 0xFFFFFFFF)._bit_generator  # seeded as torch seeds its twister
    bits = generator.random_raw(count).astype(np.uint32) & np.uint32(0xFFFFFF)
    uniform = (bits.astype(np.float32) * np.float32(2.0**-24)).reshape(-1, BLOCK)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform[:, : BLOCK // 2]))
    angle = np.float32(2 * np.pi) * uniform[:, BLOCK // 2 :]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


def rounded(values: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """Round values to the nearest that the type holds, still as float32."""
    if precision is Precision.FP32:
        return values
    if precision is Precision.FP16:
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32)
    ties_to_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + ties_to_even) & np.uint32(0xFFFF0000)).view(np.float32)


def starting_noise(seed: int, grid: Grid, channels: int, precision: Precision) -> NDArray[np.float32]:
    """Draw the packed noise (1, n, channels) of one picture as diffusers does: as (channels / 4, 2 h, 2 w)."""
    height, width = 2 * grid[0], 2 * grid[1]
    drawn = standard_normal(seed, channels // 4 * height * width).reshape(1, channels // 4, height, width)
    return rearrange(rounded(drawn, precision), "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def request_noise(request: PreparedRequest, channels: int, precision: Precision) -> NDArray[np.float32]:
    """Return a request's noise (b, n, channels), one row per picture: what it was given, or what its seeds draw."""
    if request.noise is not None:
        return request.noise.astype(np.float32)
    drawn = {seed: starting_noise(seed, request.grid, channels, precision) for seed in request.seeds}
    return np.concatenate([drawn[seed] for _, seed in request.jobs])

"""Holds the formulas that both halves of the transformer share.

Source: black-forest-labs/flux `src/flux/math.py` and `modules/layers.py`, diffusers `transformer_flux.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..configs import TransformerConfig

DOUBLE_VECTORS = 12  # image: shift, scale, gate for attention, then for the MLP; the same six for text
SINGLE_VECTORS = 3  # shift, scale, gate
FINAL_VECTORS = 2  # scale, shift


WIDEST = 32
"""The number of tensors that one Split gives or one Concat takes at most.

For more, ONNX Runtime's CUDA kernels copy a list of addresses from a host buffer of the moment, which a CUDA graph
would read again when it is long gone.
"""


def num_vectors(config: TransformerConfig) -> int:
    """Return the number of modulation vectors that one step needs (344 in FLUX.1)."""
    return DOUBLE_VECTORS * config.num_double_blocks + SINGLE_VECTORS * config.num_single_blocks + FINAL_VECTORS


def sinusoid(values: Tensor, width: int = 256, max_period: float = 10_000.0) -> Tensor:
    """Embed `values` (n,) as (n, width) float32: cosines, then sines."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    frequencies = torch.exp(-math.log(max_period) * steps / half)
    angles = values.to(torch.float32)[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def split_vectors(modulation: Tensor) -> list[Tensor]:
    """Split (b, k, hidden) into k times (b, 1, hidden)."""
    parts = modulation.split(WIDEST, dim=1) if modulation.shape[1] > WIDEST else (modulation,)
    return [vector for part in parts for vector in part.split(1, dim=1)]


def join_vectors(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate (N, b, k, hidden) along k."""
    while len(parts) > 1:
        parts = [torch.cat(list(parts[at : at + WIDEST]), dim=2) for at in range(0, len(parts), WIDEST)]
    return parts[0]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply layer norm without learned weights, then `* (1 + scale) + shift`."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def within_fp16(x: Tensor) -> Tensor:
    """Clip float16 residuals to the finite range, as diffusers does; other types pass through."""
    return x.clip(-65504, 65504) if x.dtype == torch.float16 else x


def scaled_queries(wide: Tensor) -> Tensor:
    """Scale float32 queries (..., d) by 1 / sqrt(d), for attention whose own scale is 1.

    An exporter's or a compiler's own scaling multiplies q and k by the root of it in their type, which in bfloat16 is
    0.29 % too little at width 128; here the factor is exact, and q is rounded once, as it would be anyway.
    """
    assert wide.dtype == torch.float32
    return wide * wide.shape[-1] ** -0.5


class InFloat32(nn.Module):
    """Applies an elementwise function in float32, and rounds its result to the type that it was given.

    Torch's own functions do so by themselves. A compiler takes them apart and rounds every step, constants too.
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.to(torch.float32)).to(x.dtype)


class TanhGelu(InFloat32):
    """Applies GELU in its tanh form."""

    def __init__(self) -> None:
        super().__init__(nn.GELU(approximate="tanh"))


class Attend(nn.Module):
    """Computes attention itself: (b, h, s, d) each -> (b, s, h * d). Queries come scaled (`scaled_queries`).

    It is a module, so that calibration can watch its operands.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return rearrange(F.scaled_dot_product_attention(q, k, v, scale=1.0), "b h s d -> b s (h d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Holds rotary tables, and the form in which the graph wants the rotation.

    Attributes:
        cos: (s, d / 2) float32.
        sin: (s, d / 2) float32.
        single_operator: Leaves one ONNX `RotaryEmbedding` per rotation, else multiplications and additions.
    """

    cos: Tensor
    sin: Tensor
    single_operator: bool

    def rows(self, start: int | torch.SymInt, stop: int | torch.SymInt) -> Rope:
        """Return the tables of tokens `start` to `stop`."""
        return Rope(cos=self.cos[start:stop], sin=self.sin[start:stop], single_operator=self.single_operator)

    def queries(self, x: Tensor) -> Tensor:
        """Rotate queries (b, h, s, d), and scale them as `scaled_queries` does; they are rounded once."""
        return scaled_queries(self._rotated(x)).to(x.dtype)

    def keys(self, x: Tensor) -> Tensor:
        """Rotate keys (b, h, s, d)."""
        return self._rotated(x).to(x.dtype)

    def _rotated(self, x: Tensor) -> Tensor:
        """Rotate interleaved pairs of `x` (b, h, s, d), in float32 whatever its type."""
        wide = x.to(torch.float32)
        if self.single_operator:
            tables = (table.unsqueeze(0).expand(x.shape[0], -1, -1) for table in (self.cos, self.sin))
            return torch.onnx.ops.rotary_embedding(wide, *tables, interleaved=True)
        even, odd = rearrange(wide, "b h s (d two) -> two b h s d", two=2).unbind(0)
        pairs = torch.stack([even * self.cos - odd * self.sin, even * self.sin + odd * self.cos], dim=-1)
        return pairs.flatten(-2)

"""Names the 16 values of FP4 (E2M1) and packs their codes two per byte.

Source: OCP Microscaling Formats 1.0; the order within a byte is that of ONNX and safetensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16
"""The number of values that share an NVFP4 block scale."""
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The magnitudes of E2M1 in the order of their codes; bit 3 is the sign."""


def fp4_values(codes: Tensor) -> Tensor:
    """Return the float32 values of `codes` (uint8)."""
    table = torch.tensor((*FP4_VALUES, *(-value for value in FP4_VALUES)), device=codes.device)
    return table[codes.to(torch.int32)]


def pack(codes: Tensor) -> Tensor:
    """Return two codes per byte along the last axis, the first in the low half, as ONNX and safetensors have it."""
    return codes[..., ::2] | (codes[..., 1::2] << 4)


def unpack(packed: Tensor) -> Tensor:
    """Return the codes (uint8) of bytes that `pack` made."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2)

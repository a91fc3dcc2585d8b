"""Names number types as torch does. This is the one place where torch's are asked for."""

from __future__ import annotations

import torch

from ..engine.number_types import NumberType


def torch_dtype(number: NumberType) -> torch.dtype:
    """Return torch's type of a number type. NVFP4 is held in bytes, two codes each."""
    return getattr(torch, number.torch)

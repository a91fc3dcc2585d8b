"""Computes 16-bit products on a CPU as GPUs do: exact products, added in float32, the sum rounded once.

Torch's own convolution in bfloat16 takes 50 times as long where the CPU has no instructions for it, as most have not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = {
    F.linear,
    F.conv2d,
    F.scaled_dot_product_attention,
    torch.matmul,
    torch.bmm,
    torch.baddbmm,
    Tensor.matmul,
    Tensor.__matmul__,
}
_NARROW = (torch.bfloat16, torch.float16)


class WideProducts(TorchFunctionMode):
    """Computes products and convolutions on a CPU of operands widened to float32, and rounds what comes out."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if func in _PRODUCTS and isinstance(first, Tensor) and first.dtype in _NARROW and first.device.type == "cpu":
            wide = func(*map(_widened, args), **{name: _widened(value) for name, value in kwargs.items()})
            return wide.to(first.dtype)
        return func(*args, **kwargs)


def _widened(value: Any) -> Any:
    return value.to(torch.float32) if isinstance(value, Tensor) and value.dtype in _NARROW else value

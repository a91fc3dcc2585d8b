"""NVFP4 files in any of the four layouts, written independently of the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kontext_trt.export.graphs.formats import nvfp4_scale, to_nvfp4


def tiled(scales: Tensor) -> Tensor:
    """Block scales where cuBLAS wants them, byte by byte: tiles of 128 rows by 4 blocks, 512 bytes each."""
    rows, blocks = scales.shape
    whole_rows, whole_blocks = -(-rows // 128) * 128, -(-blocks // 4) * 4
    out = torch.zeros(whole_rows * whole_blocks, dtype=torch.uint8)
    r, b = torch.meshgrid(torch.arange(rows), torch.arange(blocks), indexing="ij")
    tile = (r // 128) * (whole_blocks // 4) + b // 4
    out[tile * 512 + (r % 32) * 16 + (r % 128 // 32) * 4 + b % 4] = scales.view(torch.uint8)
    return out.reshape(whole_rows, whole_blocks).view(torch.float8_e4m3fn)


def nvfp4_parts(
    weight: Tensor, layout: str = "swizzled-high", input_scale: float | None = 0.01
) -> tuple[dict[str, Tensor], Tensor]:
    """A weight's tensors by the end of their names, and its values after quantization."""
    quantized = to_nvfp4(weight.float(), nvfp4_scale(weight.float().abs().amax()))
    first, second = quantized.codes[:, ::2], quantized.codes[:, 1::2]
    high, low = (first, second) if layout.endswith("high") else (second, first)
    parts = {
        "weight": (high << 4) | low,
        "weight_scale": tiled(quantized.scales) if layout.startswith("swizzled") else quantized.scales,
        "weight_scale_2": quantized.scale,
    }
    if input_scale is not None:
        parts["input_scale"] = torch.tensor(input_scale)
    return parts, quantized.values()


def in_blocks(name: str) -> bool:
    """Whether a tensor is what such files quantize: a linear layer's weight in a block."""
    return "blocks." in name and name.endswith(".weight")


def nvfp4_tensors(
    tensors: Mapping[str, Tensor],
    layout: str = "swizzled-high",
    *,
    input_scale: float | None = 0.01,
    chosen: Callable[[str], bool] = in_blocks,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of a file with NVFP4 layers under the names given, and all its values in float32 or as they lie."""
    stored: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and chosen(name):
            parts, values[name] = nvfp4_parts(tensor, layout, input_scale)
            stored |= {name.removesuffix("weight") + end: part.contiguous() for end, part in parts.items()}
        else:
            stored[name] = values[name] = tensor
    return stored, values


def write_nvfp4(path: Path, tensors: Mapping[str, Tensor], layout: str = "swizzled-high", **options) -> dict[str, Tensor]:
    """Write such a file and return its values."""
    stored, values = nvfp4_tensors(tensors, layout, **options)
    save_file(stored, path)
    return values

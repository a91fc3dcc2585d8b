"""NVFP4 files in any of the four layouts, written independently of the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from single_files import bfl_transformer
from torch import Tensor

from kontext_trt.export.graphs.formats import Nvfp4Tensor, nvfp4_scale, to_nvfp4


def tiled(scales: Tensor) -> Tensor:
    """Block scales where cuBLAS wants them, byte by byte: tiles of 128 rows by 4 blocks, 512 bytes each."""
    rows, blocks = scales.shape
    whole_rows, whole_blocks = -(-rows // 128) * 128, -(-blocks // 4) * 4
    out = torch.zeros(whole_rows * whole_blocks, dtype=torch.uint8)
    r, b = torch.meshgrid(torch.arange(rows), torch.arange(blocks), indexing="ij")
    tile = (r // 128) * (whole_blocks // 4) + b // 4
    out[tile * 512 + (r % 32) * 16 + (r % 128 // 32) * 4 + b % 4] = scales.view(torch.uint8)
    return out.reshape(whole_rows, whole_blocks).view(torch.float8_e4m3fn)


SMALL = Path(__file__).parents[2] / "examples/small_kontext/checkpoint"
SMALL_TRANSFORMER = SMALL / "transformer/diffusion_pytorch_model.safetensors"


@cache
def small_transformer() -> dict[str, Tensor]:
    """The small trained network's tensors under diffusers' names; not to be changed."""
    return load_file(SMALL_TRANSFORMER)


@cache
def small_bfl_transformer() -> dict[str, Tensor]:
    """The same under BFL's names."""
    return bfl_transformer(small_transformer())


@cache
def shuffled_transformer() -> dict[str, Tensor]:
    """The same numbers in an order that no training gave them."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
        for name, tensor in small_transformer().items()
    }


_quantized: dict[int, tuple[Tensor, Nvfp4Tensor, Tensor]] = {}


def quantize(weight: Tensor) -> tuple[Nvfp4Tensor, Tensor]:
    """The weight in NVFP4 and its values; once for each tensor, which lives as long."""
    if id(weight) not in _quantized:
        made = to_nvfp4(weight.float(), nvfp4_scale(weight.float().abs().amax()))
        _quantized[id(weight)] = weight, made, made.values()
    return _quantized[id(weight)][1:]


def nvfp4_parts(
    weight: Tensor, layout: str = "swizzled-high", input_scale: float | None = 0.01
) -> tuple[dict[str, Tensor], Tensor]:
    """A weight's tensors by the end of their names, and its values after quantization."""
    quantized, values = quantize(weight)
    first, second = quantized.codes[:, ::2], quantized.codes[:, 1::2]
    high, low = (first, second) if layout.endswith("high") else (second, first)
    parts = {
        "weight": (high << 4) | low,
        "weight_scale": tiled(quantized.scales) if layout.startswith("swizzled") else quantized.scales,
        "weight_scale_2": quantized.scale,
    }
    if input_scale is not None:
        parts["input_scale"] = torch.tensor(input_scale)
    return parts, values


def in_mlps(name: str) -> bool:
    """Whether a tensor is a weight of an MLP, or fused with one, under diffusers' or BFL's names."""
    return name.endswith(
        tuple(
            f"{end}.weight"
            for end in (
                ".proj_mlp",
                "_blocks.0.proj_out",
                ".linear1",
                ".linear2",
                "_mlp.0",
                "_mlp.2",
                "net.0.proj",
                "net.2",
            )
        )
    ) or ("single_transformer_blocks" in name and name.endswith("proj_out.weight"))


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


def write_nvfp4(
    path: Path, tensors: Mapping[str, Tensor], layout: str = "swizzled-high", **options
) -> dict[str, Tensor]:
    """Write such a file and return its values."""
    stored, values = nvfp4_tensors(tensors, layout, **options)
    save_file(stored, path)
    return values

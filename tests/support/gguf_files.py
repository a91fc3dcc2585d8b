"""GGUF files written by the gguf package, and parts of headers written by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize
from torch import Tensor

K_QUANTS = ("Q4_K", "Q5_K", "Q6_K")
READ = ("F32", "F16", "BF16", "Q8_0", *K_QUANTS)
HALVES = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where in a block its float16 scales lie."""


def stored(values: Tensor, kind: str) -> np.ndarray:
    """The bytes of a matrix in a type that the package can write."""
    number = GGMLQuantizationType[kind]
    return quantize(values.float().numpy(), number)


def random_blocks(shape: tuple[int, ...], kind: str, seed: int = 0, scale: float = 0.001) -> np.ndarray:
    """Bytes of a K-quant, which the package only reads: any bits, with scales that are small numbers."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 256, (*shape[:-1], shape[-1] // block, size), dtype=np.uint8)
    for place in HALVES[kind]:
        halves = (scale * generator.random(data.shape[:-1])).astype(np.float16)
        data[..., place : place + 2] = halves[..., None].view(np.uint8)
    return data.reshape(*shape[:-1], -1)


def write_gguf(
    path: Path,
    tensors: Mapping[str, Tensor],
    kind_of: Callable[[str, Tensor], str],
    *,
    architecture: str | None = "flux",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Tensor]:
    """Write a file and return its values in float32, by the package's own dequantization.

    K-quants are random: a file of theirs does not have the values of `tensors`.
    """
    writer = GGUFWriter(path, architecture or "x")
    if architecture is None:
        writer.kv_data[0].clear()
    values: dict[str, Tensor] = {}
    for name, shape in (shapes or {}).items():
        writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
    for i, (name, tensor) in enumerate(tensors.items()):
        kind = kind_of(name, tensor)
        number = GGMLQuantizationType[kind]
        data = random_blocks(tuple(tensor.shape), kind, i) if kind in K_QUANTS else stored(tensor, kind)
        writer.add_tensor(name, data, raw_dtype=None if kind in ("F32", "F16") else number)
        read = dequantize(data, number) if kind not in ("F32", "F16") else data.astype(np.float32)
        values[name] = torch.from_numpy(read.copy()).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def header(*, tensors: int = 0, entries: int = 0, version: int = 3, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + rest


def tensor_info(name: str, dims: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)

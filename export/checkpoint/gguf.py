"""Reads GGUF files as city96's and stable-diffusion.cpp's writers make them: dequantized, some rows at a time.

Quantized types are dequantized by the gguf package, in float32. Tensors of FLUX.1 have BFL's names, those of T5
llama.cpp's, which are given back the ones that transformers has for them.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...engine.errors import CheckpointError, MissingDependencyError
from ...engine.printable import printable_line
from .decoded import DecodedView
from .file_contents import Contents
from .gguf_file import GgufFile, GgufTensor

ARCHITECTURES = (None, "flux", "t5", "t5encoder")
"""The architectures that `general.architecture` may name; stable-diffusion.cpp's files name none."""
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BLOCKS_PER_ROW = 64
"""The blocks per row in which the package gets them: it works on 16 rows at a time."""
# llama.cpp's names of T5's encoder, and transformers'; source: gguf.tensor_mapping
T5_NAMES = (
    (r"token_embd\.weight", "shared.weight"),
    (r"enc\.output_norm\.weight", "encoder.final_layer_norm.weight"),
    (r"enc\.blk\.(\d+)\.attn_([qkvo])\.weight", r"encoder.block.\1.layer.0.SelfAttention.\2.weight"),
    (
        r"enc\.blk\.(\d+)\.attn_rel_b\.weight",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.weight",
    ),
    (r"enc\.blk\.(\d+)\.attn_norm\.weight", r"encoder.block.\1.layer.0.layer_norm.weight"),
    (r"enc\.blk\.(\d+)\.ffn_gate\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_0.weight"),
    (r"enc\.blk\.(\d+)\.ffn_up\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_1.weight"),
    (r"enc\.blk\.(\d+)\.ffn_down\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wo.weight"),
    (r"enc\.blk\.(\d+)\.ffn_norm\.weight", r"encoder.block.\1.layer.1.layer_norm.weight"),
)
T5_DECODER = ("dec.", "output.weight")
"""The begins of names of a whole T5's tensors that its encoder has no use for."""


def require_gguf() -> None:
    """Raise MissingDependencyError unless the package that dequantizes GGUF's types is installed."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(
            "GGUF files with quantized weights need the package gguf; install it with: pip install 'kontext-trt[gguf]'"
        )


def open_gguf(path: Path) -> Contents:
    """Open a GGUF file; its tensors are decoded when they are read, also those that are not quantized.

    Raises:
        CheckpointError: It is damaged, of another network, or has tensors of a type that is not read.
        MissingDependencyError: It has quantized tensors, and the package that dequantizes them is not installed.
    """
    file = GgufFile.open(path)
    if file.architecture not in ARCHITECTURES:
        known = ", ".join(one for one in ARCHITECTURES if one)
        raise CheckpointError(
            f"{path} is a GGUF file of the architecture {printable_line(file.architecture)!r:.80}; FLUX.1's and T5's "
            f"encoders' are read ({known}, or none)"
        )
    if any(tensor.kind.name not in PLAIN for tensor in file.tensors.values()):
        require_gguf()
    views = {name: _view(path, tensor) for name, tensor in file.tensors.items()}
    if any(name.startswith("enc.blk.") for name in views):
        views = {t5_name(name): view for name, view in views.items() if not name.startswith(T5_DECODER)}
    return Contents(source=str(path), tensors=views)


def t5_name(name: str) -> str:
    """Return transformers' name of a tensor of T5's encoder, the name itself if llama.cpp has no such tensor."""
    for pattern, replacement in T5_NAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def _view(path: Path, tensor: GgufTensor) -> DecodedView:
    kind = tensor.kind.name
    rows = tensor.shape[0] if tensor.shape else 1
    return DecodedView(
        path=path,
        dtype=kind if kind in PLAIN else "BF16",
        shape=tensor.shape,
        decode=_Decoder(path=path, tensor=tensor),
        num_rows=rows,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoder:
    """Decodes rows of one tensor: the blocks that they touch, of which rows need not be whole ones."""

    path: Path
    tensor: GgufTensor

    def __call__(self, start: int, stop: int) -> Tensor:
        kind, width = self.tensor.kind, prod(self.tensor.shape[1:])
        first, last = start * width, stop * width
        begin, end = first // kind.block, -(-last // kind.block)
        count = (end - begin) * kind.block_bytes
        data = np.fromfile(self.path, np.uint8, count, offset=self.tensor.offset + begin * kind.block_bytes)
        if data.size != count:
            raise CheckpointError(f"{self.path} became shorter while it was read")
        values = _dequantized(data, kind.name, kind.block_bytes)
        if kind.name not in PLAIN and not torch.isfinite(values).all():
            raise CheckpointError(f"{self.path} has scales of {kind.name} blocks that are no numbers: it is damaged")
        return values[first - begin * kind.block : last - begin * kind.block]


def _dequantized(data: np.ndarray, kind: str, block_bytes: int) -> Tensor:
    if kind in PLAIN:
        return torch.from_numpy(data).view(PLAIN[kind]).to(torch.float32)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    number = GGMLQuantizationType[kind]
    whole = data.size // (block_bytes * BLOCKS_PER_ROW) * block_bytes * BLOCKS_PER_ROW
    rows = (data[:whole], block_bytes * BLOCKS_PER_ROW), (data[whole:], block_bytes)
    with np.errstate(all="ignore"):  # what is no number is found below
        parts = [dequantize(part.reshape(-1, width), number).reshape(-1) for part, width in rows if part.size]
    return torch.from_numpy(np.concatenate(parts, dtype=np.float32)) if parts else torch.empty(0)

"""Reads NVFP4 weights as files have them: codes, block scales and a tensor scale, in four layouts.

A value is code * block scale * tensor scale, a block 16 columns of a row. Files differ in which half of a byte comes
first, and in whether block scales lie row by row or in cuBLAS's tiles of 128 rows by 4 blocks. Source of the tiles:
NVIDIA's cuBLAS documentation, "1D block scaling factors layout".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...engine.errors import CheckpointError
from ..fp4 import BLOCK, fp4_values, unpack
from . import views
from .fp8 import positive_number
from .layers import StoredLayer
from .views import View

TILE_ROWS, TILE_BLOCKS = 128, 4
_NAN_BITS = 0x7F


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvfp4Layout:
    """Describes how codes and block scales of an NVFP4 weight lie in a file.

    Attributes:
        swizzled: Block scales lie in cuBLAS's tiles; otherwise row by row.
        high_first: The first of two codes is in the high half of their byte; otherwise in the low half.
    """

    swizzled: bool
    high_first: bool

    @property
    def name(self) -> str:
        """The word for it in options and messages, such as "swizzled-high"."""
        return f"{'swizzled' if self.swizzled else 'linear'}-{'high' if self.high_first else 'low'}"


LAYOUTS = {
    layout.name: layout
    for layout in (
        Nvfp4Layout(swizzled=True, high_first=True),  # comfy-kitchen, and so BFL's and ComfyUI's files
        Nvfp4Layout(swizzled=False, high_first=False),  # ModelOpt, diffusers, TensorRT
        Nvfp4Layout(swizzled=True, high_first=False),  # torchao with swizzled scales
        Nvfp4Layout(swizzled=False, high_first=True),
    )
}
"""The layouts by name, the usual ones first."""


def padded(rows: int, blocks: int) -> tuple[int, int]:
    """Return the rows and blocks that whole tiles have."""
    return -(-rows // TILE_ROWS) * TILE_ROWS, -(-blocks // TILE_BLOCKS) * TILE_BLOCKS


def swizzle(scales: Tensor) -> Tensor:
    """Return block scales (rows, blocks) in cuBLAS's tiles, as a matrix of whole tiles, the rest of it zeros.

    A tile's 512 bytes follow one another: row r and block b of it lie at (r % 32) * 16 + (r // 32) * 4 + b.
    """
    rows, blocks = padded(*scales.shape)
    whole = torch.zeros(rows, blocks, dtype=torch.uint8)
    whole[: scales.shape[0], : scales.shape[1]] = scales.view(torch.uint8)
    tiles = rearrange(whole, "(i q r) (j b) -> (i j r q b)", q=4, r=32, b=TILE_BLOCKS)
    return tiles.reshape(rows, blocks).view(scales.dtype)


def unswizzle(scales: Tensor, rows: int, blocks: int) -> Tensor:
    """Return block scales (rows, blocks) from what `swizzle` returns, of any shape of as many items."""
    whole_rows, whole_blocks = padded(rows, blocks)
    flat = scales.contiguous().view(torch.uint8).reshape(-1)
    tiles = rearrange(
        flat,
        "(i j r q b) -> (i q r) (j b)",
        i=whole_rows // TILE_ROWS,
        j=whole_blocks // TILE_BLOCKS,
        q=4,
        r=32,
    )
    return tiles[:rows, :blocks].contiguous().view(scales.dtype)


def swap_nibbles(packed: Tensor) -> Tensor:
    """Return bytes (uint8) with their halves exchanged."""
    return (packed << 4) | (packed >> 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvfp4View:
    """Describes a weight (outputs, inputs) in NVFP4, or rows of it; it is read in pieces, as a `TensorView` is.

    Attributes:
        codes: The codes of the whole weight: bytes (outputs, inputs / 2) or FP4 (outputs, inputs).
        scales: The block scales of the whole weight, E4M3.
        tensor_scale: The scale of all block scales.
        input_scale: The same for the layer's input, None where the file has none.
        layout: How codes and block scales lie, None before it is known; then no values can be read.
        start: The first row that is described.
        stop: The row after the last.
    """

    codes: View
    scales: View
    tensor_scale: float
    input_scale: float | None = None
    layout: Nvfp4Layout | None = None
    start: int
    stop: int

    @property
    def path(self) -> Path:
        """The file that it lies in, for messages."""
        return self.codes.path

    @property
    def dtype(self) -> str:
        """The type of what is not quantized in such files, and of the values where they are not kept as codes."""
        return "BF16"

    @property
    def shape(self) -> tuple[int, int]:
        return self.stop - self.start, 2 * self._row_bytes

    @property
    def num_items(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The number of bytes that the values take in bfloat16."""
        return 2 * self.num_items

    @property
    def _row_bytes(self) -> int:
        return self.codes.size_bytes // self.codes.shape[0]

    def rows(self, start: int, stop: int) -> Nvfp4View:
        """Return rows `start` to `stop` of what is described."""
        return replace(self, start=self.start + start, stop=self.start + stop)

    def fits(self, *, swizzled: bool) -> bool:
        """Return whether there are as many block scales as the weight has, in tiles if they are `swizzled`."""
        rows, blocks = self.codes.shape[0], 2 * self._row_bytes // BLOCK
        return self.scales.num_items == prod(padded(rows, blocks) if swizzled else (rows, blocks))

    def reshaped(self, shape: tuple[int, ...]) -> Nvfp4View:
        """Return itself: an NVFP4 weight has two axes, and no other shape of it is asked for."""
        assert shape == self.shape, (shape, self.shape)
        return self

    def block_scales(self) -> Tensor:
        """Return the rows' block scales (rows, inputs / 16), E4M3, whatever the layout.

        Raises:
            CheckpointError: One of them is NaN.
        """
        assert self.layout is not None
        rows, blocks = self.codes.shape[0], 2 * self._row_bytes // BLOCK
        stored = stored_bytes(self.scales)
        linear = unswizzle(stored, rows, blocks) if self.layout.swizzled else stored.reshape(rows, blocks)
        linear = linear[self.start : self.stop]
        if ((linear & _NAN_BITS) == _NAN_BITS).any():
            raise CheckpointError(f"{self.path} has block scales of NVFP4 that are NaN; download it again")
        return linear.view(torch.float8_e4m3fn)

    def packed(self) -> Iterator[Tensor]:
        """Yield the rows' codes two per byte (uint8), the first in the low half, some rows at a time."""
        assert self.layout is not None
        step = max(1, views.CHUNK_ITEMS // self.shape[1])
        for start in range(self.start, self.stop, step):
            stored = stored_bytes(self.codes, start, min(start + step, self.stop)).reshape(-1, self._row_bytes)
            yield swap_nibbles(stored) if self.layout.high_first else stored

    def chunks(self) -> Iterator[Tensor]:
        """Yield the values as flat float32 tensors of whole rows, at most 32 MiB unless one row is larger."""
        scales, begin = self.block_scales().to(torch.float32), 0
        for packed in self.packed():
            steps = scales[begin : begin + len(packed)] * self.tensor_scale
            begin += len(packed)
            blocks = fp4_values(unpack(packed)).unflatten(-1, (-1, BLOCK))
            yield (blocks * steps.unsqueeze(-1)).reshape(-1)

    def read(self) -> Tensor:
        """Return the values (rows, inputs) in float32."""
        return torch.cat([torch.empty(0), *self.chunks()]).reshape(self.shape)


def read_nvfp4(layer: StoredLayer) -> Nvfp4View:
    """Return a layer's weight, whose layout is not known yet, and the scale of its input.

    Raises:
        CheckpointError: A tensor is missing or does not belong there, or a type, shape or scale cannot be NVFP4's.
    """
    weight = layer.weight
    odd = layer.tensors.keys() - {"weight", "weight_scale", "weight_scale_2", "input_scale"}
    missing = {"weight_scale", "weight_scale_2"} - layer.tensors.keys()
    if odd or missing:
        what = f"has {', '.join(sorted(odd))}" if odd else f"lacks {', '.join(sorted(missing))}"
        raise CheckpointError(
            f"{layer.source}: {layer.name} {what}; NVFP4 is read with weight, weight_scale, weight_scale_2 and, if "
            "there is one, input_scale"
        )
    scales = layer.tensors["weight_scale"]
    if not (isinstance(weight, View) and isinstance(scales, View) and _is_nvfp4(weight, scales)):
        raise CheckpointError(
            f"{layer.source}: {layer.name} is not NVFP4: its weight is {weight.dtype} {list(weight.shape)}, its "
            f"weight_scale {scales.dtype} {list(scales.shape)}; a weight is U8 [outputs, inputs / 2] with inputs in "
            f"blocks of {BLOCK}, and has one F8_E4M3 per block, or so many in whole tiles of 128 rows by 4 blocks"
        )
    found = layer.tensors.get("input_scale")
    input_scale = None if found is None else positive_number(layer, found, "input_scale")
    return Nvfp4View(
        codes=weight,
        scales=scales,
        tensor_scale=positive_number(layer, layer.tensors["weight_scale_2"], "weight_scale_2"),
        input_scale=None if layer.declared.get("full_precision_matrix_mult") else input_scale,
        start=0,
        stop=weight.shape[0],
    )


def _is_nvfp4(weight: View, scales: View) -> bool:
    if not (weight.dtype in ("U8", "F4") and scales.dtype == "F8_E4M3" and len(weight.shape) == 2 and weight.shape[0]):
        return False
    inputs = weight.shape[1] * (2 if weight.dtype == "U8" else 1)
    view = Nvfp4View(codes=weight, scales=scales, tensor_scale=1.0, start=0, stop=weight.shape[0])
    return inputs > 0 and inputs % BLOCK == 0 and (view.fits(swizzled=True) or view.fits(swizzled=False))


def stored_bytes(view: View, start: int = 0, stop: int | None = None) -> Tensor:
    """Return a copy of the bytes (uint8, flat) of rows `start` to `stop` of a view's first axis, all of them without.

    Raises:
        CheckpointError: The file is no longer as long as it was.
    """
    rows = view.shape[0] if view.shape else 1
    row_bytes = view.size_bytes // max(rows, 1)
    stop = rows if stop is None else stop
    data = np.fromfile(view.path, np.uint8, (stop - start) * row_bytes, offset=view.offset + start * row_bytes)
    if data.size != (stop - start) * row_bytes:
        raise CheckpointError(f"{view.path} became shorter while it was read")
    return torch.from_numpy(data)

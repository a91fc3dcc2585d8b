"""Writes quantized weights, tensor by tensor: at no time is more than one layer in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...engine.errors import QuantizationError
from ...engine.number_types import SAFETENSORS
from ..checkpoint.views import View
from ..fp4 import BLOCK, pack
from ..torch_types import torch_dtype
from .formats import fp8_scale, nvfp4_scale, to_fp8, to_nvfp4
from .recipes import Fp8, Fp8Weights, LinearFormat, Nvfp4
from .weights import FileTensor

SCALE = "weight_scale"
TENSOR_SCALE = "weight_scale_2"
DOWN, UP = "lora_down.weight", "lora_up.weight"
"""The names of SVDQuant's branch: (rank, inputs) and (outputs, rank)."""
ROWS_AT_ONCE_ITEMS = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLayer:
    """Describes a linear layer to be quantized: its weight (outputs, inputs) and what it becomes.

    Attributes:
        name: The layer's name.
        view: Where its weight lies.
        format: What it becomes.
        dtype: The type that the graph computes in: "F32", "F16" or "BF16".
        scale_dtype: The type of FP8's scales, of the same three.
        one_scale: FP8 has one scale for the whole weight, instead of one per output channel.
    """

    name: str
    view: View
    format: LinearFormat
    dtype: str
    scale_dtype: str
    one_scale: bool = False

    def specs(self) -> dict[str, FileTensor]:
        """Return the tensors that the layer needs, by the end of their names; none if its weight serves as it lies.

        Raises:
            QuantizationError: The layer's inputs cannot be cut into NVFP4's blocks.
        """
        outputs, inputs = self.view.shape
        if isinstance(self.format, (Fp8, Fp8Weights)):
            if self.view.dtype == "F8_E4M3":
                return {}  # as they lie
            return {
                "weight": FileTensor(dtype="F8_E4M3", shape=(outputs, inputs)),
                SCALE: FileTensor(dtype=self.scale_dtype, shape=() if self.one_scale else (outputs,)),
            }
        if inputs % BLOCK:
            raise QuantizationError(f"{self.name} has {inputs} inputs, NVFP4 needs a multiple of {BLOCK}: --keep it")
        specs = {
            "weight": FileTensor(dtype="F4", shape=(outputs, inputs)),
            SCALE: FileTensor(dtype="F8_E4M3", shape=(outputs, inputs // BLOCK)),
            TENSOR_SCALE: FileTensor(dtype="F32", shape=()),
        }
        if rank := self.rank:
            specs |= {
                DOWN: FileTensor(dtype=self.dtype, shape=(rank, inputs)),
                UP: FileTensor(dtype=self.dtype, shape=(outputs, rank)),
            }
        return specs

    @property
    def rank(self) -> int:
        """The rank of the branch beside the product; never more than the matrix itself has."""
        return min(self.format.rank, *self.view.shape) if isinstance(self.format, Nvfp4) else 0


def quantize_layer(layer: QuantizedLayer) -> Iterator[tuple[str, Tensor]]:
    """Yield pieces of the layer's tensors, by the end of their names, as `write_tensors` takes them.

    Raises:
        QuantizationError: The weight holds NaN or infinity.
    """
    if not layer.specs():
        return
    if isinstance(layer.format, (Fp8, Fp8Weights)):
        yield from _fp8(layer)
    else:
        yield from _nvfp4(layer)


def _rows(view: View) -> Iterator[Tensor]:
    """Yield the matrix in float32, at most 32 MiB of rows at a time."""
    outputs, inputs = view.shape
    step = max(1, ROWS_AT_ONCE_ITEMS // inputs)
    for start in range(0, outputs, step):
        yield view.rows(start, min(start + step, outputs)).read()


def _finite(rows: Tensor, layer: QuantizedLayer) -> Tensor:
    if not torch.isfinite(rows).all():
        raise QuantizationError(f"the weight of {layer.name} holds NaN or infinity; is the checkpoint damaged?")
    return rows


def _fp8(layer: QuantizedLayer) -> Iterator[tuple[str, Tensor]]:
    scale_dtype = torch_dtype(SAFETENSORS[layer.scale_dtype])
    if layer.one_scale:
        amax = torch.stack([_finite(rows, layer).abs().amax() for rows in _rows(layer.view)]).amax()
        scale = fp8_scale(amax, scale_dtype)
        yield SCALE, scale
        for rows in _rows(layer.view):
            yield "weight", to_fp8(rows / scale.to(torch.float32))
        return
    for rows in _rows(layer.view):
        scale = fp8_scale(_finite(rows, layer).abs().amax(1), scale_dtype)
        yield "weight", to_fp8(rows / scale.to(torch.float32)[:, None])
        yield SCALE, scale


def _nvfp4(layer: QuantizedLayer) -> Iterator[tuple[str, Tensor]]:
    rest = None
    if layer.rank:
        down, up, rest = _branch(layer)
        yield DOWN, down
        yield UP, up

    def rows() -> Iterator[Tensor]:
        return _rows(layer.view) if rest is None else iter(rest.split(max(1, ROWS_AT_ONCE_ITEMS // rest.shape[1])))

    # the tensor's scale must be known before its first block, so the weight is read twice
    scale = nvfp4_scale(torch.stack([_finite(piece, layer).abs().amax() for piece in rows()]).amax())
    yield TENSOR_SCALE, scale
    for piece in rows():
        quantized = to_nvfp4(piece, scale)
        yield "weight", pack(quantized.codes)
        yield SCALE, quantized.scales


def _branch(layer: QuantizedLayer) -> tuple[Tensor, Tensor, Tensor]:
    """Return the low-rank part as (rank, inputs) and (outputs, rank), and what it leaves of the weight, in float32.

    The part is the largest singular components, found by a randomized range finder (Halko et al., arXiv 0909.4061) from
    a fixed seed. What is left is taken from the branch as rounded, so that rounding it costs nothing.
    """
    weight, dtype = _finite(layer.view.read(), layer), torch_dtype(SAFETENSORS[layer.dtype])
    generator = torch.Generator().manual_seed(0)
    width = min(layer.rank + 8, *weight.shape)
    basis = weight @ torch.randn(weight.shape[1], width, generator=generator)
    for _ in range(2):
        basis = torch.linalg.qr(basis).Q
        basis = weight @ torch.linalg.qr(weight.T @ basis).Q
    basis = torch.linalg.qr(basis).Q
    u, s, v = torch.linalg.svd(basis.T @ weight, full_matrices=False)
    root = s[: layer.rank].sqrt()
    up = ((basis @ u[:, : layer.rank]) * root).to(dtype)
    down = (v[: layer.rank] * root[:, None]).to(dtype)
    return down, up, weight - up.to(torch.float32) @ down.to(torch.float32)

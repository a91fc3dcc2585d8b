"""Writes into a graph what makes queries and keys lose less by FP8: keys less a mean, both by Hadamard's matrix.

Fused operators do the same (`formats.hadamard`), with a mean over some tokens. Here it is over all, and the matrices
are multiplied by powers of two instead of 1 / sqrt(d), which are exact in 16 bits, and whose product is 1 / d.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch

from ...engine.errors import QuantizationError
from .constants import constant, whole_numbers
from .formats import hadamard, turning_factors

Insert = Callable[..., ir.Value]
"""The kind of functions that insert an operator, by its type, inputs, name and attributes, and return its output."""


def insert_turning(
    graph: ir.Graph, insert: Insert, queries: ir.Value, keys: ir.Value, name: str, dtype: ir.DataType
) -> tuple[ir.Value, ir.Value, float, float]:
    """Put what turns queries and keys (b, h, s, d), of type `dtype`, into a graph.

    Returns:
        Both, turned, and what the ranges of those that `formats.hadamard` turned are multiplied by to be theirs.

    Raises:
        QuantizationError: Hadamard's matrix has not this width, or it is not known.
    """
    width = keys.shape[-1] if keys.shape is not None else None
    if not isinstance(width, int) or width.bit_count() != 1 or width > 256:
        raise QuantizationError(f"{name} has heads of width {width}; FP8 needs a power of two up to 256")
    turned: list[ir.Value] = []
    ranges: list[float] = []
    smooth = _smoothed(graph, insert, keys, name, dtype)
    for part, x, factor in zip("qk", (queries, smooth), turning_factors(width), strict=True):
        matrix = _matrix(graph, width, factor, dtype)
        turned.append(insert("MatMul", [x, matrix], f"{name}.{part}_turned"))
        ranges.append(factor * width**0.5)
    return turned[0], turned[1], ranges[0], ranges[1]


def _smoothed(graph: ir.Graph, insert: Insert, keys: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
    """Return keys less their mean over all tokens, which is computed in float32."""
    stem, wide = f"{name}.k", keys
    if dtype != ir.DataType.FLOAT:
        wide = insert("Cast", [keys], f"{stem}_widened", to=int(ir.DataType.FLOAT))
    axis = whole_numbers(graph, "turning_axis", [2])
    mean = insert("ReduceMean", [wide, axis], f"{stem}_mean", keepdims=1)
    smooth = insert("Sub", [wide, mean], f"{stem}_smooth")
    return smooth if dtype == ir.DataType.FLOAT else insert("Cast", [smooth], f"{stem}_narrow", to=int(dtype))


def _matrix(graph: ir.Graph, width: int, factor: float, dtype: ir.DataType) -> ir.Value:
    values = hadamard(torch.eye(width), factor).numpy().astype(dtype.numpy())
    return constant(graph, f"hadamard_{width}_over_{round(1 / factor)}", ir.tensor(values, dtype=dtype))

"""Finds the matrix products of a traced graph that can be quantized, by their shape in the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from .trace import tensor_name


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearNodes:
    """Holds the nodes of a linear layer as tracing leaves it: `product` = MatMul(x, `transpose`(`weight`)).

    Attributes:
        name: The layer's name.
        weight: The initializer, (outputs, inputs).
        stored_scale: The scalar that an FP8 weight is dequantized with before the transpose, None for other weights.
        dequantized: What it is dequantized to, None for other weights.
        transpose: The Transpose of the weight.
        product: The MatMul.
    """

    name: str
    weight: ir.Value
    stored_scale: ir.Value | None
    dequantized: ir.Value | None
    transpose: ir.Node
    product: ir.Node

    @property
    def input(self) -> ir.Value:
        value = self.product.inputs[0]
        assert value is not None
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionNodes:
    """Holds an Attention operator; `name` is that of the module with the projections around it."""

    name: str
    node: ir.Node


def find_linears(model: ir.Model) -> dict[str, LinearNodes]:
    """Return every linear layer by name, in the order of the graph."""
    found: dict[str, LinearNodes] = {}
    for product in model.graph:
        transpose = product.inputs[1].producer() if product.op_type == "MatMul" and product.inputs[1] else None
        if transpose is None or transpose.op_type != "Transpose" or transpose.inputs[0] is None:
            continue
        weight, scale, dequantized = transpose.inputs[0], None, None
        dequantize = weight.producer()
        if dequantize is not None and dequantize.op_type == "Add" and dequantize.inputs[0] is not None:
            dequantize = dequantize.inputs[0].producer()  # a weight that hangs on its layer's input
        if dequantize is not None and dequantize.op_type == "DequantizeLinear":
            weight, scale, dequantized = dequantize.inputs[0], dequantize.inputs[1], dequantize.outputs[0]
        if weight is not None and weight.is_initializer():
            name = tensor_name(weight.name or "").removesuffix(".weight")
            found[name] = LinearNodes(
                name=name,
                weight=weight,
                stored_scale=scale,
                dequantized=dequantized,
                transpose=transpose,
                product=product,
            )
    return found


def find_attention(model: ir.Model, linears: dict[str, LinearNodes]) -> dict[str, AttentionNodes]:
    """Return every Attention operator, by the module whose value projection feeds it."""
    by_product = {id(linear.product): linear.name for linear in linears.values()}
    found: dict[str, AttentionNodes] = {}
    for node in model.graph:
        if node.op_type == "Attention":
            value = node.inputs[2]
            assert value is not None
            projection = next(name for name in _feeding(value, by_product))
            name = projection.rpartition(".")[0]
            found[name] = AttentionNodes(name=name, node=node)
    return found


def _feeding(value: ir.Value, by_product: dict[int, str]) -> Iterator[str]:
    """Yield the linear layers that a value comes from, nearest first, across what only moves data or adds a bias."""
    pending = [value]
    while pending:
        producer = pending.pop(0).producer()
        if producer is None:
            continue
        if id(producer) in by_product:
            yield by_product[id(producer)]
        elif producer.op_type in ("Add", "Reshape", "Transpose", "Concat", "Cast"):
            pending += [one for one in producer.inputs if one is not None and not one.is_initializer()]

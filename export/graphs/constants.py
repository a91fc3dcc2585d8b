"""Adds constants to a graph that several places of it share."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def constant(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Return a graph's initializer of a name, which is added with these values unless it is there."""
    if name not in graph.initializers:
        tensor.name = name
        graph.initializers[name] = ir.Value(
            name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
    return graph.initializers[name]


def whole_numbers(graph: ir.Graph, name: str, values: Sequence[int]) -> ir.Value:
    """Return a graph's list of whole numbers of a name, which is added unless it is there."""
    return constant(graph, name, ir.tensor(values, dtype=ir.DataType.INT64))

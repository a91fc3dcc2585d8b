"""Puts the bodies of fused operators in their place, so that what is inside them can be counted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ...engine.bundle.graph_file import GraphFile
from ...runtime.operators.catalogue import DEFINITIONS, DOMAIN
from .graph_shapes import whole_proto


def fused_names(graph: GraphFile) -> set[str]:
    """Return the names of the fused operators that a graph has nodes of, such as "LinearGelu_fp8_to_fp8"."""
    nodes = graph.proto.graph.node
    return {node.op_type for node in nodes if node.domain == DOMAIN and node.op_type in DEFINITIONS}


def with_bodies(graph: GraphFile, names: Collection[str]) -> GraphFile:
    """Return a graph in which these fused operators are what their functions say, in standard operators.

    Raises:
        MissingDependencyError: The onnx package is not installed.
    """
    if not names:
        return graph
    proto = whole_proto(graph)
    from onnx import inliner

    inlined = inliner.inline_selected_functions(proto, [(DOMAIN, name) for name in names])
    _fold_lengths(inlined.graph)
    for index, node in enumerate(inlined.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"  # nodes of functions have none
    data = inlined.SerializeToString()
    return replace(graph, data=data, proto=type(graph.proto).FromString(data))


def _fold_lengths(graph: Any) -> None:
    """Make a reshaped whole number a constant list: ONNX's inference of shapes does not see through the two."""
    numbers = {
        node.output[0]: node.attribute[0].i
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value_int"
    }
    from onnx import helper

    for node in graph.node:
        if node.op_type == "Reshape" and node.input[0] in numbers:
            node.CopyFrom(helper.make_node("Constant", [], list(node.output), value_ints=[numbers[node.input[0]]]))

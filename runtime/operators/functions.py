"""Writes the functions of fused operators into graphs, and tells those that are ours from those that are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ...engine.bundle.onnx_schema import message_class
from ...engine.components import Precision
from .body import FP8, OPSET, Attribute, Fp8Zero, Node, Reference
from .catalogue import DEFINITIONS, DOMAIN
from .definition import Definition, Format

_INT, _FLOAT, _STRING, _TENSOR, _INTS = 2, 1, 3, 4, 7
"""The numbers of attribute types (onnx.AttributeProto.AttributeType)."""
_WHOLE, _TEXT, _BYTES = "TYPE_INT64", "TYPE_STRING", "TYPE_BYTES"

MESSAGES: Mapping[str, Mapping[str, tuple[int, str, bool]]] = {
    "ModelProto": {"opset_import": (8, "OperatorSetIdProto", True), "functions": (25, "FunctionProto", True)},
    "FunctionProto": {
        "name": (1, _TEXT, False),
        "input": (4, _TEXT, True),
        "output": (5, _TEXT, True),
        "attribute": (6, _TEXT, True),
        "node": (7, "NodeProto", True),
        "opset_import": (9, "OperatorSetIdProto", True),
        "domain": (10, _TEXT, False),
    },
    "NodeProto": {
        "input": (1, _TEXT, True),
        "output": (2, _TEXT, True),
        "op_type": (4, _TEXT, False),
        "attribute": (5, "AttributeProto", True),
    },
    "AttributeProto": {
        "name": (1, _TEXT, False),
        "f": (2, "TYPE_FLOAT", False),
        "i": (3, _WHOLE, False),
        "s": (4, _BYTES, False),
        "t": (5, "TensorProto", False),
        "ints": (8, _WHOLE, True),
        "type": (20, "TYPE_INT32", False),
        "ref_attr_name": (21, _TEXT, False),
    },
    "TensorProto": {"data_type": (2, "TYPE_INT32", False), "raw_data": (9, _BYTES, False)},
    "OperatorSetIdProto": {"domain": (1, _TEXT, False), "version": (2, _WHOLE, False)},
}
"""The part of ONNX's schema that our functions use; whatever else a function has makes it another's."""


def function_bytes(definition: Definition, precision: Precision) -> bytes:
    """Return an operator's function in a graph of `precision`, as a serialized onnx.FunctionProto."""
    function = _model().functions.add()
    function.name, function.domain = definition.name, DOMAIN
    function.input.extend(definition.inputs)
    function.output.extend(definition.operator.outputs)
    function.attribute.extend(definition.attributes)
    function.opset_import.add(domain="", version=OPSET)
    for node in definition.body(precision).nodes:
        _add_node(function, node)
    return function.SerializeToString(deterministic=True)


def _add_node(function: Any, node: Node) -> None:
    added = function.node.add(op_type=node.operator)
    added.input.extend(node.inputs)
    added.output.append(node.output)
    for name, value in node.attributes:
        set_attribute(added.attribute.add(name=name), value)


def set_attribute(attribute: Any, value: Attribute) -> None:
    """Set an onnx.AttributeProto to a value of ours."""
    if isinstance(value, Reference):
        attribute.type, attribute.ref_attr_name = (_FLOAT if value.kind is float else _INT), value.name
    elif isinstance(value, Fp8Zero):
        attribute.type = _TENSOR
        attribute.t.data_type, attribute.t.raw_data = FP8, b"\0"
    elif isinstance(value, tuple):
        attribute.type = _INTS
        attribute.ints.extend(value)
    elif isinstance(value, str):
        attribute.type, attribute.s = _STRING, value.encode()
    elif isinstance(value, float):
        attribute.type, attribute.f = _FLOAT, value
    else:
        attribute.type, attribute.i = _INT, value


@cache
def _model_class() -> type[Any]:
    return message_class("functions", MESSAGES, "ModelProto")


def _model() -> Any:
    return _model_class()()


def foreign_functions(graph: bytes, precision: Precision) -> list[str]:
    """Return the names of a graph's functions in our domain that are not exactly ours.

    A kernel computes what our function says, so a graph whose function says something else must not get one.

    Args:
        graph: A serialized onnx.ModelProto.
        precision: What the graph computes in.
    """
    foreign: list[str] = []
    for function in _functions(graph):
        definition = DEFINITIONS.get(function.name)
        if definition is None or _own(function) != function_bytes(definition, precision):
            foreign.append(function.name)
    return foreign


def version_of(graph: bytes) -> int | None:
    """Return the version of our domain that a serialized onnx.ModelProto was written in, None if it has none."""
    return next((one.version for one in _model_class().FromString(graph).opset_import if one.domain == DOMAIN), None)


def _functions(graph: bytes) -> list[Any]:
    """Return the functions in our domain of a serialized model, whoever wrote them."""
    return [function for function in _model_class().FromString(graph).functions if function.domain == DOMAIN]


def _own(function: Any) -> bytes:
    """Return a function's bytes in the order of ours, with whatever it has beyond our schema."""
    return function.SerializeToString(deterministic=True)


def used_definitions(names: Iterable[str]) -> dict[str, Definition]:
    """Return the definitions of operators by their names, in the order of the catalogue."""
    wanted = set(names)
    return {name: one for name, one in DEFINITIONS.items() if name in wanted}


def formats_of(graph: bytes) -> set[Format]:
    """Return the formats of the fused operators that a graph has functions of."""
    return {DEFINITIONS[one.name].format for one in _functions(graph) if one.name in DEFINITIONS}

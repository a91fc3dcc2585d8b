"""Edits a denoiser's graph for a rank that holds a part of the text; the parts of pictures have any length as it is.

A graph has the number of text tokens as a constant: in its input's shape, in the operators that part text from
pictures, and where the last block takes the target tokens out of the joint sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ...engine.bundle.bundle import Bundle
from ...engine.bundle.graph_file import GraphFile
from ...engine.bundle.onnx_schema import message_class
from ...engine.components import KNOWN_COMPONENTS, Runs
from ...engine.errors import BundleError
from ...engine.number_types import NUMBER_TYPES
from ..flow.group import Group
from ..flow.shares import divide
from ..operators.catalogue import DOMAIN
from .ports import PortType

TEXT = "text_tokens"
"""The input whose second dimension is the number of text tokens."""
_JOINT, _JOINT_LINEAR, _LENGTH = ("JointHeads", "JointLinear"), "JointLinear", "text_length"
_VECTOR, _SCALAR = "kontext_text_length", "kontext_text_length_scalar"
"""The names of the constants that take the place of the number of text tokens."""
_INT64 = NUMBER_TYPES["int64"].onnx_number
_TEXT, _WHOLE = "TYPE_STRING", "TYPE_INT64"

_MESSAGES: Mapping[str, Mapping[str, tuple[int, str, bool]]] = {
    "ModelProto": {"graph": (7, "GraphProto", False)},
    "GraphProto": {
        "node": (1, "NodeProto", True),
        "initializer": (5, "TensorProto", True),
        "input": (11, "ValueInfoProto", True),
        "value_info": (13, "ValueInfoProto", True),
    },
    "NodeProto": {
        "input": (1, _TEXT, True),
        "output": (2, _TEXT, True),
        "op_type": (4, _TEXT, False),
        "attribute": (5, "AttributeProto", True),
        "domain": (7, _TEXT, False),
    },
    "AttributeProto": {
        "name": (1, _TEXT, False),
        "i": (3, _WHOLE, False),
        "t": (5, "TensorProto", False),
        "ints": (8, _WHOLE, True),
    },
    "TensorProto": {
        "dims": (1, _WHOLE, True),
        "data_type": (2, "TYPE_INT32", False),
        "int64_data": (7, _WHOLE, True),
        "name": (8, _TEXT, False),
        "raw_data": (9, "TYPE_BYTES", False),
    },
    "ValueInfoProto": {"name": (1, _TEXT, False), "type": (2, "TypeProto", False)},
    "TypeProto": {"tensor_type": (1, "TensorTypeProto", False)},
    "TensorTypeProto": {"shape": (2, "TensorShapeProto", False)},
    "TensorShapeProto": {"dim": (1, "DimensionProto", True)},
    "DimensionProto": {"dim_value": (1, _WHOLE, False)},
}
"""The part of ONNX's schema that is edited; the rest is written as it was read."""


@cache
def _model_class() -> type[Any]:
    return message_class("shared", _MESSAGES, "ModelProto")


def own_text(bundle: Bundle, component: str, group: Group | None) -> int | None:
    """Return how many text tokens a rank's component takes; None for one that takes all, or that runs alone."""
    if group is None or KNOWN_COMPONENTS[component].runs is not Runs.STEP:
        return None
    return divide(bundle.manifest.model.dims.text_length, 0, 0, group.size).text[group.rank]


def shared_port(name: str, port: PortType, own: int) -> PortType:
    """Return an input or output as a graph of `own` text tokens has it."""
    return replace(port, shape=(port.shape[0], own, *port.shape[2:])) if name == TEXT else port


def shared_graph(graph: GraphFile, length: int, own: int) -> bytes:
    """Return a denoiser's graph of fused operators for `own` text tokens instead of `length`, serialized.

    Raises:
        BundleError: It is none of fused operators, or has that number where it is not known what for.
    """
    model = _model_class().FromString(graph.data)
    editor = _Editor(graph, model.graph, length, own)
    editor.run()
    return model.SerializeToString()


class _Editor:
    """Edits one graph in place."""

    def __init__(self, file: GraphFile, graph: Any, length: int, own: int) -> None:
        self._file, self._graph, self._length, self._own = file, graph, length, own
        self._producers = {name: node for node in graph.node for name in node.output}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}

    def run(self) -> None:
        """Edit the graph, or raise BundleError."""
        for value in self._graph.input:
            if value.name == TEXT:
                self._set_tokens(value)
        joint = [node for node in self._graph.node if node.domain == DOMAIN and node.op_type.startswith(_JOINT)]
        if not joint:
            raise self._refusal("has no fused operators that part text from pictures")
        for node in joint:
            if node.op_type.startswith(_JOINT_LINEAR):
                self._set_length(node)
        for node in self._graph.node:
            if node.op_type != "Slice" or node.domain:
                continue
            if self._is_length(node.input[2]):
                raise self._refusal("takes as many tokens as there are of text")
            if self._is_length(node.input[1]):
                node.input[1] = _VECTOR
                self._set_end(node.input[2])
        outputs = {name for node in self._graph.node if node.domain == DOMAIN for name in node.output}
        for value in self._graph.value_info:
            if value.name in outputs and self._tokens(value) == self._length:
                self._set_tokens(value)
        for name, dims in ((_VECTOR, (1,)), (_SCALAR, ())):
            constant = np.full(dims, self._own, np.int64)
            self._graph.initializer.add(name=name, dims=dims, data_type=_INT64, raw_data=constant.tobytes())

    def _set_length(self, node: Any) -> None:
        (attribute,) = (one for one in node.attribute if one.name == _LENGTH)
        if attribute.i != self._length:
            raise self._refusal(f"parts {attribute.i} text tokens from pictures, not {self._length}")
        attribute.i = self._own

    def _set_end(self, name: str) -> None:
        """Edit the sum of text and target tokens that a slice ends at."""
        for node in self._made_by(name):
            if node.op_type == "Add":
                wanted = [index for index, operand in enumerate(node.input) if self._is_length(operand)]
                if len(wanted) == 1:
                    node.input[wanted[0]] = _SCALAR
                    return
                if _SCALAR in node.input:  # another slice's end, edited before
                    return
        raise self._refusal("takes tokens behind the text, to an end that is not known")

    def _made_by(self, name: str) -> Iterator[Any]:
        """Yield the nodes that a value is made by, one after another, as long as only its shape changes."""
        while (node := self._producers.get(name)) is not None:
            yield node
            if node.op_type not in ("Reshape", "Unsqueeze", "Squeeze", "Cast", "Identity"):
                return
            name = node.input[0]

    def _is_length(self, name: str) -> bool:
        """Return whether a value is the constant number of text tokens."""
        constant = self._initializers.get(name)
        node = self._producers.get(name)
        if constant is None and node is not None and node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constant = attribute.t
                elif attribute.name == "value_int":
                    return attribute.i == self._length
                elif attribute.name == "value_ints":
                    return list(attribute.ints) == [self._length]
        if constant is None or constant.data_type != _INT64:
            return False
        raw = np.frombuffer(constant.raw_data, np.int64).tolist()
        return (list(constant.int64_data) or raw) == [self._length]

    def _tokens(self, value: Any) -> int | None:
        dims = value.type.tensor_type.shape.dim
        return dims[1].dim_value if len(dims) == 3 else None

    def _set_tokens(self, value: Any) -> None:
        if self._tokens(value) != self._length:
            raise self._refusal(f"takes {value.name} of another shape than (b, {self._length}, hidden)")
        value.type.tensor_type.shape.dim[1].dim_value = self._own

    def _refusal(self, what: str) -> BundleError:
        return BundleError(
            f"{self._file.path} {what}, so it cannot be shared by several devices; export the checkpoint again with "
            "--operators fused"
        )

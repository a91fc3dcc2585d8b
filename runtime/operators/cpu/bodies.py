"""Runs bodies of fused operators by ONNX Runtime, outside of a graph that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from ....engine.bundle.onnx_schema import message_class
from ....engine.components import Precision
from ....engine.number_types import NUMBER_TYPES
from ..body import OPSET, Body, Fp8Zero, Node, Reference
from ..definition import Definition, Kind
from ..functions import MESSAGES, set_attribute
from ..kernels import Attribute

IR_VERSION = 11
"""The version of ONNX's format that graphs of operator set 23 are written in."""
PRECISION = Precision.FP32
"""The type that bodies compute in: ONNX Runtime has no other on the CPU that all operators take."""
TYPES: Mapping[Kind, str] = {Kind.OWN: PRECISION.value, Kind.FLOAT32: "fp32", Kind.FP8: "fp8"}
"""The number types of values, by our names."""
_TEXT = "TYPE_STRING"
_SCHEMA: Mapping[str, Mapping[str, tuple[int, str, bool]]] = {
    **MESSAGES,
    "ModelProto": {
        "ir_version": (1, "TYPE_INT64", False),
        "graph": (7, "GraphProto", False),
        "opset_import": (8, "OperatorSetIdProto", True),
    },
    "GraphProto": {
        "node": (1, "NodeProto", True),
        "name": (2, _TEXT, False),
        "input": (11, "ValueInfoProto", True),
        "output": (12, "ValueInfoProto", True),
    },
    "ValueInfoProto": {"name": (1, _TEXT, False), "type": (2, "TypeProto", False)},
    "TypeProto": {"tensor_type": (1, "TensorTypeProto", False)},
    "TensorTypeProto": {"elem_type": (1, "TYPE_INT32", False)},
}


class Value(NamedTuple):
    """Holds a tensor's address and shape."""

    address: int
    shape: tuple[int, ...]


@cache
def _model_class() -> type[Any]:
    return message_class("bodies", _SCHEMA, "ModelProto")


class BodySession:
    """Runs one body.

    Args:
        body: Its nodes.
        inputs: The number types of its inputs, by name.
        outputs: Those of its outputs.
        attributes: The values of the attributes that it refers to.
        threads: The number of threads, 0 for one per core.
    """

    def __init__(
        self,
        body: Body,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        attributes: Mapping[str, Attribute],
        threads: int,
    ) -> None:
        import onnxruntime

        model = _model_class()()
        model.ir_version = IR_VERSION
        model.opset_import.add(domain="", version=OPSET)
        model.graph.name = "body"
        for listed, added in ((inputs, model.graph.input), (outputs, model.graph.output)):
            for name, number_type in listed.items():
                added.add(name=name).type.tensor_type.elem_type = NUMBER_TYPES[number_type].onnx_number
        for node in body.nodes:
            _add(model.graph, node, attributes)
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, threads
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        self._inputs, self._outputs = dict(inputs), dict(outputs)

    def __call__(self, inputs: Mapping[str, Value], outputs: Mapping[str, Value]) -> None:
        """Compute outputs, whose shapes are known, at the addresses that are given."""
        binding = self._session.io_binding()
        for bind, values, types in (
            (binding.bind_input, inputs, self._inputs),
            (binding.bind_output, outputs, self._outputs),
        ):
            for name, number_type in types.items():
                value = values[name]
                bind(name, "cpu", 0, NUMBER_TYPES[number_type].onnx_number, list(value.shape), value.address)
        self._session.run_with_iobinding(binding)


def definition_session(definition: Definition, attributes: Mapping[str, Attribute], threads: int) -> BodySession:
    """Return a session of an operator's body."""
    return BodySession(
        definition.body(PRECISION),
        _types(definition.inputs, definition.input_kinds),
        _types(definition.operator.outputs, definition.output_kinds),
        attributes,
        threads,
    )


def _types(names: Sequence[str], kinds: Sequence[Kind]) -> dict[str, str]:
    return {name: TYPES[kind] for name, kind in zip(names, kinds, strict=True)}


def _add(graph: Any, node: Node, attributes: Mapping[str, Attribute]) -> None:
    added = graph.node.add(op_type=node.operator)
    added.input.extend(node.inputs)
    added.output.append(node.output)
    for name, value in node.attributes:
        resolved = attributes[value.name] if isinstance(value, Reference) else value
        assert isinstance(resolved, int | float | str | tuple | Fp8Zero)
        set_attribute(added.attribute.add(name=name), resolved)

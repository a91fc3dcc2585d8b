"""Defines the part of ONNX's protobuf schema that this project reads, so that reading a graph does not need onnx.

What is not declared is skipped by the parser. Source of the numbers: onnx/onnx.proto of ONNX 1.23, whose field numbers
never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

_INT32, _INT64, _STRING = "TYPE_INT32", "TYPE_INT64", "TYPE_STRING"
_PACKAGE = "kontext_trt.onnx"

MESSAGES: Mapping[str, Mapping[str, tuple[int, str, bool]]] = {
    "ModelProto": {
        "graph": (7, "GraphProto", False),
        "training_info": (20, "TrainingInfoProto", True),
        "functions": (25, "FunctionProto", True),
    },
    "GraphProto": {
        "node": (1, "NodeProto", True),
        "initializer": (5, "TensorProto", True),
        "sparse_initializer": (15, "SparseTensorProto", True),
    },
    "NodeProto": {
        "input": (1, _STRING, True),
        "output": (2, _STRING, True),
        "name": (3, _STRING, False),
        "op_type": (4, _STRING, False),
        "domain": (7, _STRING, False),
        "attribute": (5, "AttributeProto", True),
    },
    "AttributeProto": {
        "name": (1, _STRING, False),
        "t": (5, "TensorProto", False),
        "g": (6, "GraphProto", False),
        "tensors": (10, "TensorProto", True),
        "graphs": (11, "GraphProto", True),
        "sparse_tensor": (22, "SparseTensorProto", False),
        "sparse_tensors": (23, "SparseTensorProto", True),
    },
    "TensorProto": {
        "dims": (1, _INT64, True),
        "data_type": (2, _INT32, False),
        "name": (8, _STRING, False),
        "external_data": (13, "StringStringEntryProto", True),
        "data_location": (14, _INT32, False),
    },
    "SparseTensorProto": {"values": (1, "TensorProto", False), "indices": (2, "TensorProto", False)},
    "StringStringEntryProto": {"key": (1, _STRING, False), "value": (2, _STRING, False)},
    "FunctionProto": {"node": (7, "NodeProto", True), "attribute_proto": (11, "AttributeProto", True)},
    "TrainingInfoProto": {"initialization": (1, "GraphProto", False), "algorithm": (2, "GraphProto", False)},
}
"""The messages, and of each the fields: number, type (a message's name, or protobuf's for a plain one), repeated."""

MAX_MESSAGES = 200_000
"""The most messages in a graph that is read: one of two bytes takes a hundred and more in memory."""
EXTERNAL = 1
"""The `data_location` of a tensor whose bytes lie in another file."""


@cache
def model_class() -> type[Any]:
    """Return the class of a model, which `FromString` makes one of."""
    return message_class("read", MESSAGES, "ModelProto")


def message_class(schema: str, messages: Mapping[str, Mapping[str, tuple[int, str, bool]]], name: str) -> type[Any]:
    """Return the class of a message, made from the description of it and of those within it.

    Args:
        schema: What the description is called; each has a name of its own.
        messages: The description, in the form of `MESSAGES`.
        name: The message's name.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = f"{_PACKAGE}.{schema}"
    file = descriptor_pb2.FileDescriptorProto(name=f"kontext_trt/{schema}.proto", package=package, syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in messages.items():
        declared = file.message_type.add(name=message)
        for field_name, (number, kind, repeated) in fields.items():
            field = declared.field.add(name=field_name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in messages:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = kinds.Type.Value(kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def too_many_messages(data: bytes) -> bool:
    """Return whether a model has more than `MAX_MESSAGES` messages that a parser would make; none is made here.

    Malformed bytes are the parser's to refuse.
    """
    children = {
        message: {number: kind for number, kind, _ in fields.values() if kind in MESSAGES}
        for message, fields in MESSAGES.items()
    }
    pending, count = [("ModelProto", 0, len(data))], 0
    while pending:
        message, position, end = pending.pop()
        while position < end:
            tag, position = _varint(data, position, end)
            wire = tag & 7
            if wire == 2:
                length, position = _varint(data, position, end)
                kind = children[message].get(tag >> 3)
                if kind is not None:
                    count += 1
                    if count > MAX_MESSAGES:
                        return True
                    pending.append((kind, position, min(position + length, end)))
                position += length
            elif wire == 0:
                _, position = _varint(data, position, end)
            else:
                position += {1: 8, 5: 4}.get(wire, end)
    return False


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the number at a position, and the position after it; what is cut off ends there."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, position

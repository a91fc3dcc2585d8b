"""Operators with kernels on the CPU, models of one node that call them, and sessions of those."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper

from kontext_trt.engine.number_types import NUMBER_TYPES
from kontext_trt.runtime.operators.failures import raising_whole
from kontext_trt.runtime.operators.kernels import Attribute, Call, Operator
from kontext_trt.runtime.operators.library import Domain

NUMPY = {
    "fp32": np.float32,
    "bf16": ml_dtypes.bfloat16,
    "fp8": ml_dtypes.float8_e4m3fn,
    "int64": np.int64,
    "fp16": np.float16,
}
X = np.arange(8, dtype=np.float32).reshape(2, 4)
W = np.full((2, 4), 0.5, np.float32)


def memory(address: int, shape: tuple[int, ...], name: str) -> np.ndarray:
    dtype = np.dtype(NUMPY[name])
    return np.frombuffer((ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(address), dtype).reshape(
        shape
    )


class ScaledAdd:
    """x * factor + w, in a kernel that says when it is closed."""

    def __init__(self, inputs: tuple[str, ...], output: str) -> None:
        self.inputs, self.output = inputs, output
        self.seen: list[tuple[dict[str, Attribute], int]] = []
        self.closed = 0

    def operator(self, name: str = "ScaledAdd") -> Operator:
        attributes: dict[str, Attribute] = {"factor": 2.0, "count": 7, "mode": "plain"}
        return Operator(name=name, inputs=self.inputs, outputs=(self.output,), make=self.make, attributes=attributes)

    def make(self, attributes: Mapping[str, Attribute]) -> Any:
        outer = self

        class Made:
            def __call__(self, call: Call) -> None:
                outer.seen.append((dict(attributes), call.stream))
                x, w = (
                    memory(one.address, one.shape, name) for one, name in zip(call.inputs, outer.inputs, strict=True)
                )
                y = memory(call.output(0, x.shape), x.shape, outer.output)
                y[...] = (x.astype(np.float32) * attributes["factor"] + w.astype(np.float32)).astype(y.dtype)

            def close(self) -> None:
                outer.closed += 1

        return Made()


def model(
    name: str,
    types: tuple[str, ...],
    *,
    domain: str,
    function: bool = False,
    shape: Any = ("a", 4),
    **attributes: Attribute,
) -> bytes:
    """A model of one node, with the types of its inputs and its output."""
    inputs = ["x", "w"][: len(types) - 1]
    ports = [
        helper.make_tensor_value_info(port, NUMBER_TYPES[kind].onnx_number, shape)
        for port, kind in zip([*inputs, "y"], types, strict=True)
    ]
    node = helper.make_node(name, inputs, ["y"], domain=domain, name="node", **attributes)
    graph = helper.make_graph([node], "g", ports[:-1], ports[-1:])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(domain, 1)]
    functions = [body(name, domain)] if function else []
    return helper.make_model(graph, opset_imports=opsets, ir_version=11, functions=functions).SerializeToString()


def body(name: str, domain: str) -> onnx.FunctionProto:
    """x * factor - w, so that it is not what the kernel computes."""
    factor = helper.make_node("Constant", [], ["f"])
    reference = onnx.AttributeProto(name="value_float", ref_attr_name="factor", type=onnx.AttributeProto.FLOAT)
    factor.attribute.append(reference)
    nodes = [factor, helper.make_node("Mul", ["x", "f"], ["t"]), helper.make_node("Sub", ["t", "w"], ["y"])]
    opsets = [helper.make_opsetid("", 23)]
    default = helper.make_attribute("factor", 2.0)
    return helper.make_function(domain, name, ["x", "w"], ["y"], nodes, opsets, attribute_protos=[default])


def session(content: bytes, domain: Domain | None, *, parallel: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    if domain is not None:
        domain.add_to(options)
    with raising_whole():
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(one: onnxruntime.InferenceSession, x: np.ndarray = X, **inputs: np.ndarray) -> np.ndarray:
    with raising_whole():
        return np.asarray(one.run(None, {"x": x, **inputs})[0])

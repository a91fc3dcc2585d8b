"""Operators with kernels on the CPU: types, attributes, errors, threads, and the ends of sessions and processes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.engine.number_types import NUMBER_TYPES
from kontext_trt.runtime.operators.failures import raising_whole
from kontext_trt.runtime.operators.kernels import Attribute, Call, Operator
from kontext_trt.runtime.operators.library import Domain

ROOT = Path(__file__).parents[3]
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


class Raises:
    """What `error` makes is raised by a kernel, or already by what makes it; none, and the kernel copies."""

    def __init__(self) -> None:
        self.error: Callable[[], BaseException | None] = lambda: None

    def operator(self, name: str, *, when_made: bool = False) -> Operator:
        return Operator(
            name=name,
            inputs=("fp32",),
            outputs=("fp32",),
            make=self._make_or_raise if when_made else lambda _: self._call,
        )

    def _make_or_raise(self, _: Mapping[str, Attribute]) -> Any:
        self._raise()
        return self._call

    def _raise(self) -> None:
        if (error := self.error()) is not None:
            try:
                raise KeyError("what led to it")
            except KeyError:
                raise error  # noqa: B904 # the context stays

    def _call(self, call: Call) -> None:
        self._raise()
        (x,) = call.inputs
        y = call.output(0, x.shape)
        ctypes.memmove(y, x.address, 4 * math.prod(x.shape))


SCALED = {
    types: ScaledAdd(types[:2], types[2])
    for types in (("fp32", "fp32", "fp32"), ("bf16", "bf16", "bf16"), ("int64", "fp32", "fp32"))
}
QUANTIZE = ScaledAdd(("bf16", "fp32"), "fp8")
RAISES, RAISES_MADE = Raises(), Raises()
DOMAIN = Domain("tests.library")
DOMAIN.add(
    *(one.operator() for one in SCALED.values()),
    QUANTIZE.operator("Quantize"),
    RAISES.operator("Raises"),
    RAISES_MADE.operator("RaisesMade", when_made=True),
    Operator(
        name="OnlyCuda",
        inputs=("fp32",),
        outputs=("fp32",),
        make=lambda _: lambda call: None,
        provider="CUDAExecutionProvider",
    ),
)


def model(
    name: str, types: tuple[str, ...], *, domain: str = DOMAIN.name, function: bool = False, **attributes: Attribute
) -> bytes:
    """A model of one node, with the types of its inputs and its output."""
    inputs = ["x", "w"][: len(types) - 1]
    ports = [
        helper.make_tensor_value_info(port, NUMBER_TYPES[kind].onnx_number, ["a", 4])
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


def session(content: bytes, domain: Domain | None = DOMAIN, *, parallel: bool = False) -> onnxruntime.InferenceSession:
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


@pytest.mark.parametrize(
    ("name", "types"), [*(("ScaledAdd", one) for one in SCALED), ("Quantize", ("bf16", "fp32", "fp8"))]
)
def test_types_attributes_and_shapes(name: str, types: tuple[str, ...]):
    scaled = QUANTIZE if name == "Quantize" else SCALED[types]
    binding = (one := session(model(name, types, factor=3.0, mode="süß"))).io_binding()
    arrays = {port: value.astype(NUMPY[kind]) for port, value, kind in zip("xw", (X, W), types[:2], strict=True)}
    for (port, array), kind in zip(arrays.items(), types, strict=False):
        binding.bind_input(port, "cpu", 0, NUMBER_TYPES[kind].onnx_number, list(array.shape), array.ctypes.data)
    y = np.zeros(X.shape, NUMPY[types[-1]])
    binding.bind_output("y", "cpu", 0, NUMBER_TYPES[types[-1]].onnx_number, list(y.shape), y.ctypes.data)
    scaled.seen.clear()
    one.run_with_iobinding(binding)
    np.testing.assert_array_equal(y.astype(np.float32), (X * 3 + W).astype(y.dtype).astype(np.float32))
    assert scaled.seen == [({"factor": 3.0, "count": 7, "mode": "süß"}, 0)]


def test_the_kernel_wins_over_the_function_of_its_name():
    content = model("ScaledAdd", ("fp32",) * 3, function=True, factor=3.0)
    np.testing.assert_array_equal(run(session(content), w=W), X * 3 + W)
    np.testing.assert_array_equal(run(session(content, None), w=W), X * 3 - W)


def test_a_session_has_the_operators_that_it_is_given():
    options = onnxruntime.SessionOptions()
    DOMAIN.add_to(options, [one for one in DOMAIN.operators if one.name == "Quantize"])
    content = model("ScaledAdd", ("fp32",) * 3, function=True)
    one = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(run(one, w=W), X * 2 - W)


def test_no_elements():
    assert run(session(model("ScaledAdd", ("fp32",) * 3)), X[:0], w=W[:0]).shape == (0, 4)


def test_an_attribute_of_another_type_is_refused():
    with pytest.raises(ExecutorError, match="the attribute factor is 3, a int; a float is wanted"):
        session(model("ScaledAdd", ("fp32",) * 3, factor=3))


@pytest.mark.parametrize("name", ["OnlyCuda", "ScaledAdd"])
def test_what_is_added_for_another_provider_or_other_types_is_an_error(name: str):
    types = ("fp32", "fp32") if name == "OnlyCuda" else ("fp16",) * 3
    with pytest.raises(Exception, match=name):
        session(model(name, types, function=name == "ScaledAdd"))

"""Tells the shape and type of every value of a component's graph, with numbers for its dynamic dimensions.

Exporters state shapes as expressions ("n + m + 512"), leave some out, and have names of their own in others ("2*s39").
What is stated is evaluated, ONNX's shape inference adds what follows from it, names that are not known are solved from
the two, and so on until nothing is new.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ...engine.bundle.graph_file import GraphFile
from ...engine.errors import BundleError, MissingDependencyError
from ...engine.number_types import ONNX
from ...runtime.operators.catalogue import DOMAIN

_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
_FP4_QUANTIZE, _FP4_BLOCK = "TRT_FP4DynamicQuantize", 16
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Value:
    """Describes a tensor by its shape and its `element_type`, which is ONNX's name."""

    shape: tuple[int, ...]
    element_type: str

    @property
    def size_bytes(self) -> int:
        return int(prod(self.shape) * ONNX[self.element_type].bits / 8)


def extent(expression: str, symbols: Mapping[str, int]) -> int | None:
    """Return a dimension such as "4*h*w" in numbers.

    None if it has a name that is not known, or is no such expression.
    """
    try:
        return _evaluate(ast.parse(expression, mode="eval").body, symbols)
    except (SyntaxError, KeyError):
        return None


def _evaluate(node: ast.expr, symbols: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return symbols[node.id]
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_evaluate(node.left, symbols), _evaluate(node.right, symbols))
    raise KeyError(ast.dump(node))


class Values(dict[str, Value]):
    """Holds values by name; a missing one raises BundleError, which names it and what makes it."""

    def __init__(self, graph: GraphFile, found: Mapping[str, Value]) -> None:
        super().__init__(found)
        self._graph = graph

    def __missing__(self, name: str) -> Value:
        made = next((node.op_type for node in self._graph.proto.graph.node if name in node.output), "an input")
        raise BundleError(f"{self._graph.path}: the shape of {name} ({made}) cannot be told; export the bundle again")


def concrete_values(graph: GraphFile, dims: Mapping[str, int]) -> Values:
    """Return every value's shape and type; values whose shape cannot be told are left out.

    Args:
        graph: The component's graph.
        dims: The dynamic dimensions by their names in `components.DYNAMIC_DIMS`.

    Raises:
        MissingDependencyError: The onnx package is not installed.
    """
    onnx, proto = _import_onnx(), whole_proto(graph)
    stated = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
    borders = {info.name for info in (*proto.graph.input, *proto.graph.output)}
    symbols, found, news = dict(dims), {}, True
    while news:
        known_before = len(found) + len(symbols)
        known = [info for info in stated if _settle(info, symbols)]
        del proto.graph.value_info[:]
        proto.graph.value_info.extend(info for info in known if info.name not in borders)
        proto.graph.value_info.extend(_named(onnx, name, value) for name, value in _others(graph, found).items())
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
        found |= {
            info.name: value
            for info in (*inferred.input, *inferred.value_info, *inferred.output)
            if (value := _value(onnx, info)) is not None
        }
        for info in stated:
            if info.name in found:
                _solve(info, found[info.name].shape, symbols)
        news = len(found) + len(symbols) > known_before
    for tensor in proto.graph.initializer:
        found[tensor.name] = Value(tuple(tensor.dims), onnx.TensorProto.DataType.Name(tensor.data_type))
    return Values(graph, found)


def whole_proto(graph: GraphFile) -> Any:
    """Return all of a graph as the onnx package has it: `GraphFile.proto` has only what building needs.

    Raises:
        MissingDependencyError: The onnx package is not installed.
    """
    return _import_onnx().load_from_string(graph.data)


def _import_onnx() -> Any:
    try:
        import onnx
        import onnx.shape_inference
    except ImportError as error:
        raise MissingDependencyError("counting a graph's work needs onnx; install it with: pip install onnx") from error
    return onnx


def _settle(info: Any, symbols: Mapping[str, int]) -> bool:
    """Put numbers in the place of a stated shape's expressions, and return whether all are numbers now."""
    if not info.type.tensor_type.HasField("shape"):
        return False
    extents = info.type.tensor_type.shape.dim
    for one in extents:
        if one.dim_param and (number := extent(one.dim_param, symbols)) is not None:
            one.dim_value = number
    return all(one.HasField("dim_value") for one in extents)


def _solve(info: Any, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    """Learn names of the exporter's own from a shape that is known: of "s39" or "2*s39"."""
    for one, number in zip(info.type.tensor_type.shape.dim, shape, strict=False):
        factor, _, name = one.dim_param.rpartition("*")
        if name.isidentifier() and (not factor or factor.isdecimal()):
            symbols.setdefault(name, number // int(factor or 1))


def _value(onnx: Any, info: Any) -> Value | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape") or not all(one.HasField("dim_value") for one in tensor.shape.dim):
        return None
    shape = tuple(one.dim_value for one in tensor.shape.dim)
    return Value(shape, onnx.TensorProto.DataType.Name(tensor.elem_type))


def _named(onnx: Any, name: str, value: Value) -> Any:
    number = onnx.TensorProto.DataType.Value(value.element_type)
    return onnx.helper.make_tensor_value_info(name, number, value.shape)


def _others(graph: GraphFile, found: Mapping[str, Value]) -> dict[str, Value]:
    """Return the outputs of operators that are not ONNX's own, for which it has no inference.

    Fused operators have functions, which it looks into.
    """
    return {
        name: value
        for node in graph.proto.graph.node
        if node.domain not in (*_STANDARD, DOMAIN) and node.input[0] in found
        for name, value in _outputs(node, found[node.input[0]])
        if name not in found
    }


def _outputs(node: Any, first: Value) -> Iterator[tuple[str, Value]]:
    """Yield an operator's outputs.

    All of ours give a result of the first input's shape and type, but for the quantization to NVFP4.
    """
    if node.op_type != _FP4_QUANTIZE:
        yield node.output[0], first
        return
    codes, scales = node.output
    yield codes, Value(first.shape, "FLOAT4E2M1")
    yield scales, Value((*first.shape[:-1], first.shape[-1] // _FP4_BLOCK), "FLOAT8E4M3FN")

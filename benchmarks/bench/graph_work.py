"""Counts in its ONNX graph what one run of a component has to do: arithmetic, bytes, parameters.

Matrix products and convolutions count 2 m n k. Attention counts by itself, both of its products over all keys, as one
operator or taken apart; of fused operators, what their bodies multiply counts. Everything else counts as nothing here:
a kernel can do it while it reads or writes what a product needs. `traffic` says what it would cost a runtime that does
not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from ...engine.bundle.graph_file import GraphFile
from ...engine.errors import BundleError
from ...engine.number_types import ONNX
from .bodies import fused_names, with_bodies
from .graph_shapes import Value, concrete_values, whole_proto
from .records import Work

FLOATS = frozenset({"fp64", "fp32", "fp16", "bf16"})
_ATTENTION = ("Attention", "MultiHeadAttention")
_COUNTED = ("MatMul", "Gemm", "Conv", *_ATTENTION)
_HEAVY = ("MatMul", "Gemm", "Conv", "Attention", "Einsum")
"""The words that names of operators with much work have.

An operator with one of them, and not among the counted, is an error rather than nothing.
"""
_STORED_AS = ("Transpose", "Cast", "DequantizeLinear", "Reshape")
"""The operators that a product's kernel applies to an operand as it reads it."""
_TO_SOFTMAX = ("Mul", "Div", "Add", "Sub", "Cast", "Where", "QuantizeLinear", "DequantizeLinear")
_NO_TRAFFIC = ("Shape", "Constant", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heavy:
    """Describes a product or an attention.

    The two products of an attention that is taken apart count without the scores between them.

    Attributes:
        node: The node's name.
        operator: Its ONNX operator.
        number_format: What it computes in, such as "bf16".
        is_attention: Whether it counts as attention.
        operations: Arithmetic operations.
        size_bytes: Its operands, as narrow as they are stored, and its result.
        weight: The initializer that it reads, "" for none.
        weight_shape: The weight's shape.
    """

    node: str
    operator: str
    number_format: str
    is_attention: bool
    operations: float
    size_bytes: int
    weight: str = ""
    weight_shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Describes operators of a kind: how many, and the bytes of all their inputs and outputs, weights included."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """Describes an initializer in a weights file; one that only scales another has no parameters."""

    parameters: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphWork:
    """Holds the work of one run of a component; `traffic` is by operator, for a runtime that fuses nothing."""

    heavy: tuple[Heavy, ...]
    traffic: Mapping[str, Traffic]
    weights: Mapping[str, Weight]
    io_bytes: int

    @property
    def weight_bytes(self) -> int:
        return sum(weight.size_bytes for weight in self.weights.values())

    @property
    def parameters(self) -> int:
        return sum(weight.parameters for weight in self.weights.values())

    def work(self) -> Work:
        return Work(
            products=_by_format(one for one in self.heavy if not one.is_attention),
            attention=_by_format(one for one in self.heavy if one.is_attention),
            weight_bytes=self.weight_bytes,
            io_bytes=self.io_bytes,
            parameters=self.parameters,
        )


def _by_format(operators: Iterable[Heavy]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for one in operators:
        sums[one.number_format] = sums.get(one.number_format, 0.0) + one.operations
    return sums


def count_work(graph: GraphFile, dims: Mapping[str, int]) -> GraphWork:
    """Count what one run of a component has to do.

    Args:
        graph: The component's graph.
        dims: Every dynamic dimension of the graph by its name in `components.DYNAMIC_DIMS`.

    Raises:
        MissingDependencyError: The onnx package is not installed.
        BundleError: The shape of a value cannot be told, or the work of an operator is not known.
    """
    fused = fused_names(graph)
    work = _Counter(with_bodies(graph, fused), dims).count()
    return replace(work, traffic=_Counter(graph, dims).traffic()) if fused else work


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyWork:
    """Holds what running bodies of fused operators is, where kernels ran before.

    Attributes:
        heavy: The products and attention of those operators.
        more_bytes: What their standard operators read and write beyond what the fused ones do, were none fused.
    """

    heavy: tuple[Heavy, ...]
    more_bytes: int


def count_bodies(graph: GraphFile, dims: Mapping[str, int], names: Collection[str]) -> BodyWork:
    """Count what some fused operators of a graph are by their bodies; arguments and errors as of `count_work`."""
    fused, bodies = (_Counter(one, dims).count() for one in (graph, with_bodies(graph, names)))
    before = {one.node for one in fused.heavy}
    sizes = [sum(one.size_bytes for one in work.traffic.values()) for work in (fused, bodies)]
    heavy = tuple(one for one in bodies.heavy if one.node not in before)
    return BodyWork(heavy=heavy, more_bytes=sizes[1] - sizes[0])


class _Counter:
    def __init__(self, graph: GraphFile, dims: Mapping[str, int]) -> None:
        self._graph, self._proto = graph, whole_proto(graph).graph
        self._nodes = list(self._proto.node)
        self._values = concrete_values(graph, dims)
        self._initializers = {tensor.name: tensor for tensor in self._proto.initializer}
        self._producers = {output: node for node in self._nodes for output in node.output}

    @cached_property
    def _users(self) -> Mapping[str, list[Any]]:
        users: dict[str, list[Any]] = {}
        for node in self._nodes:
            for name in node.input:
                users.setdefault(name, []).append(node)
        return users

    @cached_property
    def _from_shapes(self) -> set[str]:
        """The values that hang on shapes and numbers alone, as Hadamard's matrix does, by which kernels only add."""
        found: set[str] = set()
        for node in self._nodes:
            if node.op_type in ("Constant", "Shape") or (node.input and found.issuperset(node.input)):
                found |= set(node.output)
        return found

    def count(self) -> GraphWork:
        borders = [*self._proto.input, *self._proto.output]
        return GraphWork(
            heavy=tuple(self._heavy()),
            traffic=self.traffic(),
            weights=dict(self._weights()),
            io_bytes=sum(self._values[info.name].size_bytes for info in borders),
        )

    def _weights(self) -> Iterator[tuple[str, Weight]]:
        scales = {name for node in self._nodes if node.op_type == "DequantizeLinear" for name in node.input[1:]}
        for name, place in self._graph.weights.items():
            parameters = 0 if name in scales else prod(self._initializers[name].dims)
            yield name, Weight(parameters=parameters, size_bytes=place.size_bytes)

    def _heavy(self) -> Iterator[Heavy]:
        for node in self._nodes:
            if node.op_type in _ATTENTION:
                yield self._attention(node)
            elif node.op_type in _COUNTED and node.input[1] not in self._from_shapes:
                yield self._product(node)
            elif node.op_type not in _COUNTED and any(word in node.op_type for word in _HEAVY):
                raise BundleError(f"{self._graph.path}: it is not known how much work {node.op_type} {node.name} is")

    def _product(self, node: Any) -> Heavy:
        left, right, result = (self._values[name] for name in (*node.input[:2], node.output[0]))
        weight = next((name for one in node.input[:2] if (name := self._forms(one)[-1]) in self._initializers), "")
        read, written = list(node.input), [node.output[0]]
        if node.op_type == "Conv":
            terms = prod(right.shape[1:])
        else:
            terms = left.shape[-2 if _attribute(node, "transA", 0) else -1]
        scores = not weight and self._becomes_softmax(node)
        mixes = not weight and self._comes_from_softmax(node)
        if scores:
            written = []
        if mixes:
            read = read[1:]
        return Heavy(
            node=node.name,
            operator=node.op_type,
            number_format=self._graph.quantized_products.get(node.name) or self._format(left, node),
            is_attention=scores or mixes,
            operations=2.0 * prod(result.shape) * terms,
            size_bytes=self._read_bytes(read) + self._size_bytes(written),
            weight=weight,
            weight_shape=self._values[weight].shape if weight else (),
        )

    def _attention(self, node: Any) -> Heavy:
        if not all([*node.input, "", ""][:3]) or len(self._values[node.input[1]].shape) > 4:
            raise BundleError(f"{self._graph.path}: {node.name} has packed queries, keys and values; only apart")
        query, key, result = (self._values[name] for name in (*node.input[:2], node.output[0]))
        return Heavy(
            node=node.name,
            operator=node.op_type,
            number_format=self._format(query, node),
            is_attention=True,
            operations=2.0 * key.shape[-2] * (prod(query.shape) + prod(result.shape)),
            size_bytes=self._read_bytes(node.input) + result.size_bytes,
        )

    def _format(self, value: Value, node: Any) -> str:
        number = ONNX.get(value.element_type)
        if number is None or number.name not in FLOATS:
            raise BundleError(f"{self._graph.path}: {node.name} multiplies {value.element_type}")
        return number.name

    def _forms(self, name: str, across: Sequence[str] = _STORED_AS) -> list[str]:
        """Return a product's operand, and what it is made of without arithmetic, across operators of these kinds."""
        forms = [name]
        while (producer := self._producers.get(forms[-1])) is not None and self._only_stores(producer, across):
            forms.append(producer.input[0])
        return forms

    def _only_stores(self, node: Any, across: Sequence[str]) -> bool:
        """Return whether a node does no arithmetic that counts: a scalar is added to weights that wait for a turn."""
        scalar = node.op_type == "Add" and self._values[node.input[1]].shape == ()
        return scalar or node.op_type in across

    def _read_bytes(self, names: Iterable[str]) -> int:
        """Return the bytes of operands, each in the narrowest of its forms: quantized, or before it is widened."""
        return sum(
            replace(
                self._values[name],
                element_type=min(
                    (self._values[form].element_type for form in self._forms(name, (*_STORED_AS, "Slice"))),
                    key=lambda element_type: ONNX[element_type].bits,
                ),
            ).size_bytes
            for name in names
            if name
        )

    def _becomes_softmax(self, node: Any) -> bool:
        users = self._users.get(node.output[0], [])
        kinds = {user.op_type for user in users}
        return "Softmax" in kinds or any(self._becomes_softmax(user) for user in users if user.op_type in _TO_SOFTMAX)

    def _comes_from_softmax(self, node: Any) -> bool:
        makers = [self._producers[name] for name in node.input if name in self._producers]
        kinds = {maker.op_type for maker in makers}
        return "Softmax" in kinds or any(self._comes_from_softmax(one) for one in makers if one.op_type in _TO_SOFTMAX)

    def _size_bytes(self, names: Iterable[str]) -> int:
        return sum(self._values[name].size_bytes for name in names if name)

    def traffic(self) -> dict[str, Traffic]:
        """Return the bytes of operators by kind, most first."""
        found: dict[str, Traffic] = {}
        for node in self._nodes:
            turns_weight = node.op_type == "Transpose" and node.input[0] in self._initializers  # products read it so
            if node.op_type not in _NO_TRAFFIC and not turns_weight:
                before = found.get(node.op_type, Traffic(count=0, size_bytes=0))
                read = node.output if node.op_type == "Gather" else node.input  # of a table, only what it takes
                size = self._size_bytes([*read, *node.output])
                found[node.op_type] = Traffic(count=before.count + 1, size_bytes=before.size_bytes + size)
        return dict(sorted(found.items(), key=lambda item: -item[1].size_bytes))


def _attribute(node: Any, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)

"""Finds where a graph's tensors lie that are not in the graph itself, and refuses every place but a plain one.

Source of the format: ONNX 1.23, docs/ExternalData.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..number_types import NUMBER_TYPES
from .folder import parts_of
from .onnx_schema import EXTERNAL

_BITS = {number.onnx_number: number.bits for number in NUMBER_TYPES.values()}
MAX_DIMS = 16
MAX_EXTENT = 1 << 40
_KEYS = {"location", "offset", "length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTensor:
    """Says where an initializer's bytes lie.

    Attributes:
        location: The file, relative to the graph's folder, with forward slashes.
        offset: Where the bytes begin in the file.
        size_bytes: How many there are: as many as its shape and type need.
    """

    location: str
    offset: int
    size_bytes: int


def external_tensors(model: Any, graph: Path) -> dict[str, ExternalTensor]:
    """Return the initializers that lie outside a graph, by name.

    Args:
        model: The graph, parsed (`onnx_schema.model_class`).
        graph: Its file, for messages.

    Raises:
        BundleError: A tensor that is no initializer lies outside, or a place is incomplete, malformed, outside the
            graph's folder, or of another size than the tensor.
    """
    found: dict[str, ExternalTensor] = {}
    for tensor in model.graph.initializer:
        if _is_external(tensor):
            if not all(isinstance(text, str) for text in _texts(tensor)):  # protobuf gives bytes that are not UTF-8
                raise BundleError(f"{graph}: {tensor.name!r} has a name or a place that is not UTF-8")
            if tensor.name in found:
                raise BundleError(f"{graph}: there are two initializers {tensor.name}; do not use this bundle")
            found[tensor.name] = _place(tensor, graph)
    for tensor in _other_tensors(model):
        if _is_external(tensor):
            raise BundleError(f"{graph}: {tensor.name or 'a constant'} lies outside the graph, and is no initializer")
    return found


def _texts(tensor: Any) -> Iterator[Any]:
    yield tensor.name
    for entry in tensor.external_data:
        yield from (entry.key, entry.value)


def _is_external(tensor: Any) -> bool:
    return tensor.data_location == EXTERNAL or bool(tensor.external_data)


def _place(tensor: Any, graph: Path) -> ExternalTensor:
    what = f"{graph}: initializer {tensor.name}"
    fields = {entry.key: entry.value for entry in tensor.external_data}
    if (
        len(fields) != len(tensor.external_data)
        or not fields.keys() <= _KEYS
        or not {"location", "length"} <= {*fields}
    ):
        raise BundleError(f"{what} says {', '.join(fields) or 'nothing'} of its place, not location, offset and length")
    location = "/".join(parts_of(fields["location"], graph.parent))
    offset, length = _number(fields.get("offset", "0"), what), _number(fields["length"], what)
    bits = _BITS.get(tensor.data_type)
    if bits is None or len(tensor.dims) > MAX_DIMS or any(not 0 <= extent <= MAX_EXTENT for extent in tensor.dims):
        raise BundleError(f"{what} has the type {tensor.data_type} and the shape {list(tensor.dims[:MAX_DIMS])}")
    wanted = (prod(tensor.dims) * bits + 7) // 8
    if length != wanted or tensor.data_location != EXTERNAL:
        raise BundleError(f"{what} {list(tensor.dims)} has {length:,} bytes outside the graph, and needs {wanted:,}")
    return ExternalTensor(location=location, offset=offset, size_bytes=length)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BundleError(f"{what} lies at {text[:40]!r}, which is no number of bytes")
    return int(text)


def _other_tensors(model: Any) -> Iterator[Any]:
    """Yield every tensor but the main graph's initializers: in attributes, subgraphs, functions, sparse ones."""
    yield from _in_graph(model.graph, main=True)
    for function in model.functions:
        yield from _in_nodes(function.node)
        yield from _in_attributes(function.attribute_proto)
    for training in model.training_info:
        yield from _in_graph(training.initialization)
        yield from _in_graph(training.algorithm)


def _in_graph(graph: Any, *, main: bool = False) -> Iterator[Any]:
    if not main:
        yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from _in_sparse(sparse)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield from _in_attributes(node.attribute)


def _in_attributes(attributes: Any) -> Iterator[Any]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("g"):
            yield from _in_graph(attribute.g)
        if attribute.HasField("sparse_tensor"):
            yield from _in_sparse(attribute.sparse_tensor)
        yield from attribute.tensors
        for sparse in attribute.sparse_tensors:
            yield from _in_sparse(sparse)
        for graph in attribute.graphs:
            yield from _in_graph(graph)


def _in_sparse(sparse: Any) -> Iterator[Any]:
    yield sparse.values
    yield sparse.indices

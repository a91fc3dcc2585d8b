"""Reads a component's ONNX graph for the compiler: where its weights lie, and what it asks for."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..number_types import NUMBER_TYPES
from .external_data import external_tensors
from .folder import Folder
from .onnx_schema import MAX_MESSAGES, model_class, too_many_messages
from .tensor_file import TensorFile

MAX_GRAPH_BYTES = 32 << 20
"""The largest graph that is read; those of the whole of FLUX.1 Kontext take 6.4 MB together."""
_MOVES = ("Transpose", "Cast", "Reshape", "Slice")
_QUANTIZED = {NUMBER_TYPES[name].onnx_number: name for name in ("fp8", "nvfp4")}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlace:
    """Says where an initializer's bytes lie."""

    file: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class GraphFile:
    """Holds a parsed graph without its external weights.

    Attributes:
        path: The graph's file.
        data: Its bytes.
        proto: What was parsed of them, the fields that `onnx_schema` declares.
    """

    path: Path
    data: bytes
    proto: Any

    @classmethod
    def read(cls, path: Path) -> GraphFile:
        """Read and parse the graph at `path`, which a program wrote itself or a bundle's manifest lists.

        Raises:
            BundleError: The file is no ONNX graph, no regular file, or too large.
        """
        from google.protobuf.message import DecodeError

        with Folder.open(path.parent) as folder:
            data = folder.read(path.name, MAX_GRAPH_BYTES)
        if too_many_messages(data):
            raise BundleError(f"{path} has more than {MAX_MESSAGES:,} nodes and tensors; do not use this bundle")
        try:
            return cls(path=path, data=data, proto=model_class().FromString(data))
        except DecodeError as error:
            raise BundleError(f"{path} is not an ONNX graph ({error}); export the bundle again") from error

    @cached_property
    def weights(self) -> Mapping[str, WeightPlace]:
        """The place of each initializer that is external data.

        Raises:
            BundleError: A place is malformed, or outside the graph's folder (`external_tensors`).
        """
        return {
            name: WeightPlace(
                file=self.path.parent / tensor.location, offset=tensor.offset, size_bytes=tensor.size_bytes
            )
            for name, tensor in external_tensors(self.proto, self.path).items()
        }

    @property
    def num_attention(self) -> int:
        """The number of Attention operators, and of softmaxes of those that are decomposed."""
        kinds = [node.op_type for node in self.proto.graph.node]
        return kinds.count("Attention") + kinds.count("Softmax")

    @cached_property
    def quantized_products(self) -> Mapping[str, str]:
        """The matrix products that are to multiply in fp8 or nvfp4, by node name.

        They are those whose two operands are dequantized from it.
        """
        producers = {output: node for node in self.proto.graph.node for output in node.output}
        products: dict[str, str] = {}
        for node in self.proto.graph.node:
            if node.op_type == "MatMul":
                formats = {_dequantized_format(name, producers) for name in node.input}
                if len(formats) == 1 and (number_format := formats.pop()) is not None:
                    products[node.name] = number_format
        return products

    @property
    def quantized(self) -> str | None:
        """The number format of the graph's quantized initializers, fp8 or nvfp4; None if there are none.

        It is nvfp4 if there are both, whose block scales are fp8.
        """
        types = {tensor.data_type for tensor in self.proto.graph.initializer}
        found = {_QUANTIZED[number] for number in types if number in _QUANTIZED}
        return max(found) if found else None


def _dequantized_format(name: str, producers: Mapping[str, Any]) -> str | None:
    """Return the format that a value was dequantized from, followed through what only moves, cuts or widens it."""
    node = producers.get(name)
    while node is not None and node.op_type in _MOVES:
        node = producers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return "nvfp4" if any(attribute.name == "block_size" for attribute in node.attribute) else "fp8"


def misplaced_weights(graph: GraphFile, files: Mapping[Path, TensorFile]) -> list[str]:
    """Return the external initializers whose bytes do not lie within one tensor of a file of `files`."""
    tensors = {
        path: sorted((one.offset, one.size_bytes) for one in file.tensors.values()) for path, file in files.items()
    }
    misplaced: list[str] = []
    for name, place in graph.weights.items():
        entries = tensors.get(place.file, [])
        before = bisect.bisect_right(entries, place.offset, key=lambda entry: entry[0])
        offset, size = entries[before - 1] if before else (0, 0)
        if place.offset + place.size_bytes > offset + size:
            misplaced.append(name)
    return misplaced


def map_weights(graph: GraphFile) -> dict[str, NDArray[np.uint8]]:
    """Return each external initializer's bytes, mapped from its file: nothing is read before it is used.

    Raises:
        BundleError: A file ends before an initializer does, or is no regular file of the bundle's.
    """
    files: dict[Path, NDArray[np.uint8]] = {}
    mapped: dict[str, NDArray[np.uint8]] = {}
    for name, place in graph.weights.items():
        if place.file not in files:
            with Folder.open(graph.path.parent) as folder:
                file = folder.reader(place.file.relative_to(folder.path).as_posix())
            with file:
                files[place.file] = np.memmap(file, dtype=np.uint8, mode="r")
        mapped[name] = files[place.file][place.offset : place.offset + place.size_bytes]
        if mapped[name].nbytes != place.size_bytes:
            raise BundleError(f"{place.file} ends before {name}; export the bundle again")
    return mapped

"""Reads the layers of a built engine, as its build log or an engine inspector lists them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from ..number_types import NUMBER_TYPES

_FORMATS = {
    "float": "fp32", "fp32": "fp32", "half": "fp16", "fp16": "fp16", "bfloat16": "bf16", "bf16": "bf16",
    "fp8": "fp8", "fp8e4m3": "fp8", "float8e4m3fn": "fp8", "fp4": "nvfp4", "fp4e2m1": "nvfp4", "float4e2m1": "nvfp4",
    "int8": "int8",
}  # fmt: skip
FORMAT_BITS = {name: NUMBER_TYPES[name].bits for name in ("nvfp4", "fp8", "int8", "fp16", "bf16", "fp32")}
"""The bits of the types that kernels multiply in."""
_ATTENTION = re.compile(r"mha|flash|fused_attention|attention_v", re.IGNORECASE)
_SOFTMAX = re.compile(r"Max\w*SubExpSum|softmax", re.IGNORECASE)
_COPY = re.compile(r"__myl_(?:Move|Tran|Resh|Cast)+_myl|Reformat", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTensor:
    """Describes an input or a constant of a layer.

    Attributes:
        number_format: One of fp32, fp16, bf16, fp8, nvfp4 and int8, or the compiler's own word in small letters.
        dims: Its shape.
    """

    number_format: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Describes one kernel, or group of kernels, of an engine.

    `nodes` are the graph's nodes that it came from.
    """

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    constants: tuple[LayerTensor, ...]
    nodes: tuple[str, ...] = ()

    @property
    def is_attention(self) -> bool:
        """True if it is a dedicated attention kernel."""
        return bool(_ATTENTION.search(self.name)) or self.kind.lower() in ("mha", "attention")

    @property
    def is_softmax(self) -> bool:
        """True if it is the middle of attention that was not fused."""
        return bool(_SOFTMAX.search(self.name)) and not self.is_attention

    @property
    def is_gemm(self) -> bool:
        kind = self.kind.lower()
        named = "Fc" in self.name or "MatMul" in self.name or "gemm" in self.name.lower()
        fused = kind in ("runtime_fusion", "kgen", "fusion") and named
        return not self.is_attention and (kind in ("gemm", "matrixmultiply", "matrix_multiply") or fused)

    @property
    def is_convolution(self) -> bool:
        return self.kind.lower() in (
            "correlation",
            "convolution",
            "conv",
            "caskconvolution",
            "cask_convolution",
            "caskgemmconvolution",
        )

    @property
    def is_copy(self) -> bool:
        return self.kind.lower() in ("reformat", "reformatting") or bool(_COPY.match(self.name))

    @property
    def number_format(self) -> str:
        """The format that it multiplies in: the wider of its two operands'.

        Other inputs (bias, residual, scales) do not count.
        """
        weight = max((tensor for tensor in self.constants if prod(tensor.dims) > 1), key=_size, default=None)
        if weight is None or len(weight.dims) < 2:
            operands = self.inputs[:2]
        else:
            # a residual may be as wide as the operand; in a strongly typed network it is not the narrower of the two
            fitting = [tensor for tensor in self.inputs if tensor.dims[-1:] == weight.dims[-2:-1]]
            operands = (*sorted(fitting or self.inputs[:1], key=_bits)[:1], weight)
        return max((tensor.number_format for tensor in operands), key=lambda text: FORMAT_BITS.get(text, 0), default="")


def _size(tensor: LayerTensor) -> int:
    return prod(tensor.dims)


def _bits(tensor: LayerTensor) -> int:
    return FORMAT_BITS.get(tensor.number_format, 64)


def layers_from_log(lines: Iterable[str]) -> list[Layer]:
    """Read the layer listing that a builder logs at the verbose level if the plan is profiled in detail."""
    return [_layer_from_line(line) for line in lines if re.match(r"Name: .*?, LayerType: ", line)]


def _layer_from_line(line: str) -> Layer:
    head = re.match(r"Name: (.*?), LayerType: (.*?),", line)
    assert head is not None
    return Layer(
        name=head[1],
        kind=head[2],
        inputs=tuple(_tensors(line, "Inputs", "Constants")),
        constants=tuple(_tensors(line, "Constants", "Outputs")),
        nodes=_nodes(line.rpartition(", Metadata: ")[2]),
    )


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[ONNX Layer: (.*?)\]", metadata))


def _tensors(line: str, start: str, end: str) -> Iterator[LayerTensor]:
    part = line.partition(f", {start}: [")[2].partition(f"], {end}: [")[0]
    for match in re.finditer(r"Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)", part):
        yield LayerTensor(number_format=_format(match[2]), dims=_dims(match[1].split(",")))


def layers_from_inspector(text: str) -> list[Layer]:
    """Read the layers of an engine inspector's JSON.

    TensorRT 10 (`Format/Datatype`) and 11 (`Datatype`) write it differently.
    """
    return [
        Layer(
            name=layer["Name"],
            kind=layer.get("LayerType", ""),
            inputs=tuple(_inspected(layer.get("Inputs", ()))),
            constants=tuple(_inspected(layer.get("Constants", ()))),
            nodes=_nodes(layer.get("Metadata", "")),
        )
        for layer in json.loads(text, strict=False)["Layers"]  # layer names may hold line breaks
        if isinstance(layer, dict)
    ]


def _inspected(tensors: Iterable[Mapping[str, Any]]) -> Iterator[LayerTensor]:
    for tensor in tensors:
        kind = str(tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype") or "")
        yield LayerTensor(number_format=_format(kind), dims=_dims(tensor.get("Dimensions", ())))


def _format(kind: str) -> str:
    """Return "BFloat16", or "Row major linear FP16 format", as a number format."""
    words = kind.lower().split()
    known = [_FORMATS[word] for word in words if word in _FORMATS]
    return known[0] if known else kind.lower()


def _dims(extents: Iterable[Any]) -> tuple[int, ...]:
    return tuple(abs(int(extent)) for extent in extents if str(extent))


def memory_from_log(lines: Iterable[str]) -> dict[str, int]:
    """Sum the bytes of "weights" and of "activation" over the engine's parts, from a build log."""
    totals = {"weights": 0, "activation": 0}
    for line in lines:
        if match := re.search(r"Total (Weights|Activation) Memory: (\d+) bytes", line):
            totals[match[1].lower()] += int(match[2])
    return totals

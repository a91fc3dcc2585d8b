"""Reads the layers of a built engine, as its build log or an engine inspector lists them.

Versions write them differently. TensorRT-RTX 1.7 lists constants apart (`Constants`) and types as `Datatype`; TensorRT
10 has weights among the inputs and `Format/Datatype`, a type in words or none where shapes are dynamic; 11 has
`DataType`. What a listing does not say is left open here: a type is then "".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..number_types import NUMBER_TYPES

_FORMATS = {
    "float": "fp32", "fp32": "fp32", "tf32": "fp32", "half": "fp16", "fp16": "fp16", "bfloat16": "bf16", "bf16": "bf16",
    "fp8": "fp8", "fp8e4m3": "fp8", "float8e4m3fn": "fp8", "e4m3": "fp8",
    "fp4": "nvfp4", "fp4e2m1": "nvfp4", "float4e2m1": "nvfp4", "e2m1": "nvfp4",
    "int8": "int8", "int32": "int32", "int64": "int64", "int4": "int4", "uint8": "uint8", "bool": "bool",
}  # fmt: skip
FORMAT_BITS = {name: NUMBER_TYPES[name].bits for name in ("nvfp4", "fp8", "int8", "fp16", "bf16", "fp32")}
"""The bits of the types that kernels multiply in."""
UNTOLD = "N/A due to dynamic shapes"
"""The text that TensorRT has for a type that it does not tell."""
_ATTENTION = re.compile(r"mha|flash|fused_attention|attention_v", re.IGNORECASE)
_SOFTMAX = re.compile(r"Max\w*SubExpSum|softmax", re.IGNORECASE)
_COPY = re.compile(r"__myl_(?:Move|Tran|Resh|Cast)+_myl|Reformat", re.IGNORECASE)
_KERNEL_FORMATS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "e4m3": "fp8", "e2m1": "nvfp4"}
_OPERANDS_IN_KERNEL = re.compile(r"_(f32|f16|bf16|i8|e4m3|e2m1)(f32|f16|bf16|i8|e4m3|e2m1)_")
_CONVOLUTIONS = {"correlation", "convolution", "conv", "caskconvolution", "cask_convolution", "caskgemmconvolution"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTensor:
    """Describes an input or a constant of a layer.

    Attributes:
        number_format: One of fp32, fp16, bf16, fp8, nvfp4, int8 and a few others that nothing is multiplied in; "" if
            the listing does not tell.
        dims: Its shape, with 1 for what is dynamic.
    """

    number_format: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Describes one kernel, or group of kernels, of an engine.

    Attributes:
        name: The layer's name.
        kind: What the listing calls its type.
        inputs: Its inputs; also its weights, where a version does not list them apart.
        constants: Its weights, where they are listed apart.
        weights: The type of the weights that a convolution names beside its tensors; "" without.
        kernel: The name of the kernel ("tactic"); "" if it is not said.
        nodes: The graph's nodes that it came from.
    """

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    constants: tuple[LayerTensor, ...]
    weights: str = ""
    kernel: str = ""
    nodes: tuple[str, ...] = ()

    @property
    def is_opaque(self) -> bool:
        """True if it stands for a whole part of the graph, of which the listing says no more."""
        return self.kind.lower() == "myelin"

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
        return self.kind.lower() in _CONVOLUTIONS

    @property
    def is_copy(self) -> bool:
        return self.kind.lower() in ("reformat", "reformatting") or bool(_COPY.match(self.name))

    @property
    def number_format(self) -> str:
        """The format that it multiplies in: the wider of its two operands'; "" if the listing does not tell.

        Other inputs (bias, residual, scales) do not count.
        """
        formats = [tensor.number_format for tensor in self._operands]
        if not (formats and all(formats)):
            named = _OPERANDS_IN_KERNEL.search(self.kernel)
            formats = [_KERNEL_FORMATS[part] for part in named.groups()] if named else []
            if self.weights:  # both operands of a convolution are of one type in a strongly typed network
                formats = [self.weights]
        return max(formats, key=lambda text: FORMAT_BITS.get(text, 0), default="")

    @property
    def _operands(self) -> Sequence[LayerTensor]:
        weight = max((tensor for tensor in self.constants if prod(tensor.dims) > 1), key=_size, default=None)
        pairs = self._chained
        if len(pairs) == 1 and (weight is None or len(weight.dims) < 2 or weight.dims[-2] == 1):  # that is a bias
            return pairs[0]
        if weight is not None and len(weight.dims) > 1:
            # a residual may be as wide as the operand; in a strongly typed network it is not the narrower of the two
            fitting = [tensor for tensor in self.inputs if tensor.dims[-1:] == weight.dims[-2:-1]]
            return (*sorted(fitting or self.inputs[:1], key=_bits)[:1], weight)
        matrices = [tensor for tensor in self.inputs if len(tensor.dims) > 1]
        if len(matrices) > 2 and self.kind.lower() != "gemm" and len({one.number_format for one in matrices}) > 1:
            return ()  # a fusion lists operands and residuals in an order of its own
        return matrices[:2] or self.inputs[:2]

    @property
    def _chained(self) -> list[tuple[LayerTensor, LayerTensor]]:
        """The inputs that can be multiplied with each other, the first's columns being as many as the second's rows."""
        matrices = [tensor for tensor in self.inputs if len(tensor.dims) > 1]
        return [
            (one, other)
            for one in matrices
            for other in matrices
            if one is not other and one.dims[-1] == other.dims[-2] > 1
        ]


def _size(tensor: LayerTensor) -> int:
    return prod(tensor.dims)


def _bits(tensor: LayerTensor) -> int:
    return FORMAT_BITS.get(tensor.number_format, 64)


def layers_from_log(lines: Iterable[str]) -> list[Layer]:
    """Read the layer listing that a builder logs at the verbose level if the plan is profiled in detail."""
    return [_layer_from_line(line) for line in lines if re.match(r"Name: .*?, LayerType: ", line)]


def _layer_from_line(line: str) -> Layer:
    head = re.match(r"Name: (.*?), LayerType: ([^,]*)", line)
    assert head is not None
    kernel = re.search(r", TacticName: ([^,]*)", line)
    weights = re.search(r', Weights: \{"Type": "(\w+)"', line)
    return Layer(
        name=head[1],
        kind=head[2],
        inputs=tuple(_tensors(line, "Inputs")),
        constants=tuple(_tensors(line, "Constants")),
        weights=_format(weights[1]) if weights else "",
        kernel=kernel[1].strip() if kernel else "",
        nodes=_nodes(line.rpartition(", Metadata: ")[2]),
    )


def _nodes(metadata: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[ONNX Layer: (.*?)\]", metadata))


def _tensors(line: str, part: str) -> Iterator[LayerTensor]:
    """Yield the tensors of one part of a line, which ends where the next one, or the first other field, begins."""
    rest = line.partition(f", {part}: [")[2]
    listed = re.split(r"\], (?:Constants|Outputs): \[|\}\](?:, \w+:|$)", rest, maxsplit=1)[0]
    for match in re.finditer(r"Dimensions: \[([-\d,]*)\](.*?)(?:Format/)?Data[tT]ype: ([^,}]*)", listed):
        yield LayerTensor(number_format=_format(match[3]), dims=_dims(match[1].split(",")))


def layers_from_inspector(text: str) -> list[Layer]:
    """Read the layers of an engine inspector's JSON."""
    return [
        Layer(
            name=layer["Name"],
            kind=layer.get("LayerType", ""),
            inputs=tuple(_inspected(layer.get("Inputs", ()))),
            constants=tuple(_inspected(layer.get("Constants", ()))),
            weights=_format(str(layer["Weights"].get("Type", ""))) if isinstance(layer.get("Weights"), dict) else "",
            kernel=str(layer.get("TacticName", "")),
            nodes=_nodes(layer.get("Metadata", "")),
        )
        for layer in json.loads(text, strict=False)["Layers"]  # layer names may hold line breaks
        if isinstance(layer, dict)
    ]


def _inspected(tensors: Iterable[Mapping[str, Any]]) -> Iterator[LayerTensor]:
    for tensor in tensors:
        spellings = ("Datatype", "DataType", "Format/Datatype", "Format/DataType")
        kind = next((str(tensor[one]) for one in spellings if tensor.get(one)), "")
        yield LayerTensor(number_format=_format(kind), dims=_dims(tensor.get("Dimensions", ())))


def _format(kind: str) -> str:
    """Return "BFloat16", or "Channel major FP16 format where channel % 8 == 0", as a number format; "" if untold."""
    words = re.findall(r"\w+", kind.lower())
    return next((_FORMATS[word] for word in words if word in _FORMATS), "")


def _dims(extents: Iterable[Any]) -> tuple[int, ...]:
    return tuple(abs(int(extent)) for extent in extents if str(extent))


def memory_from_log(lines: Iterable[str]) -> dict[str, int]:
    """Sum the bytes of "weights" and of "activation" over the engine's parts, from a build log."""
    totals = {"weights": 0, "activation": 0}
    for line in lines:
        if match := re.search(r"Total (Weights|Activation) Memory: (\d+) bytes", line):
            totals[match[1].lower()] += int(match[2])
    return totals

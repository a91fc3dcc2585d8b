"""Computes quantized layers as torch modules as their graph says, in the type that it computes in.

Weights stay quantized in their files and are dequantized when a layer runs, unless they are to be held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...runtime.operators.definition import scale_of
from ..fp4 import unpack
from ..graphs.formats import Nvfp4Tensor, fake_fp8, fake_nvfp4, hadamard, smoothed, turning_factors
from ..graphs.fused_nodes import fused_nodes, weight_only_nodes
from ..graphs.quantized_weights import DOWN, SCALE, TENSOR_SCALE, UP
from ..graphs.quantizer import INPUT_SCALE, PROBABILITY_SCALE, TRT_DOMAIN
from ..graphs.ranges import operand_name
from .bundle_modules import BundleGraph, reading


class QuantizedLinear(nn.Module):
    """Computes a linear layer with an FP8 or NVFP4 weight.

    Args:
        weight: The codes, (outputs, inputs) E4M3, or (outputs, inputs / 2) uint8 for NVFP4.
        bias: (outputs,), None without.
        rest: What the format needs beside the weight, by the names that the graph has for it.
        input_format: "fp8", "nvfp4", or "" where the input is not quantized.
        hold: Dequantize the weight once, which takes the memory of an unquantized layer.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, rest: dict[str, Tensor], input_format: str, *, hold: bool = False
    ) -> None:
        super().__init__()
        self.codes = nn.Buffer(weight)
        self.weight = None  # transformers' T5 casts its activations to the type of a layer's weight, if that is one
        self.bias = None if bias is None else nn.Buffer(bias)
        self._names = {name: name.replace(".", "_") for name in rest}
        for name, tensor in rest.items():
            self.register_buffer(self._names[name], tensor)
        self.input_format = input_format
        self._hold = hold
        self._held: Tensor | None = None

    def _part(self, name: str) -> Tensor:
        return getattr(self, self._names[name])

    def full_weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight (outputs, inputs), dequantized to `dtype`; without the low-rank branch."""
        scale = self._part(SCALE)
        if self.codes.dtype == torch.uint8:
            codes, tensor_scale = unpack(self.codes), self._part(TENSOR_SCALE)
            return Nvfp4Tensor(codes=codes, scales=scale, scale=tensor_scale).values().to(dtype)
        steps = scale.to(torch.float32)
        return (self.codes.to(torch.float32) * (steps[:, None] if steps.ndim else steps)).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.full_weight(x.dtype) if self._held is None else self._held
        self._held = weight if self._hold else None
        result = F.linear(self.rounded(x), weight, self.bias)
        if DOWN in self._names:
            result = result + F.linear(F.linear(x, self._part(DOWN)), self._part(UP))
        return result

    def rounded(self, x: Tensor) -> Tensor:
        if not self.input_format:
            return x
        scale = self._part(INPUT_SCALE).to(torch.float32)
        return fake_fp8(x, scale) if self.input_format == "fp8" else fake_nvfp4(x, scale)


Turn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The kind of functions of queries and keys that return both so that FP8 rounds them less."""


def turned_in_kernels(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys as fused operators round them."""
    return hadamard(q), hadamard(smoothed(k))


def turned_in_graphs(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys as `GraphQuantizer.quantize_attention` writes it."""
    for_queries, for_keys = turning_factors(q.shape[-1])
    return hadamard(q, for_queries), hadamard(smoothed(k, every=True).to(k.dtype), for_keys)


class QuantizedAttend(nn.Module):
    """Computes attention whose products have FP8 operands. Queries come scaled.

    Args:
        scales: Those of "q", "k" and "v".
        turn: What is done to queries and keys before they are rounded.
    """

    def __init__(self, scales: dict[str, Tensor], turn: Turn | None = None) -> None:
        super().__init__()
        self._turn = turn
        self.q_scale, self.k_scale, self.v_scale = (nn.Buffer(scales[part].to(torch.float32)) for part in "qkv")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self._turn is not None:
            q, k = (x.to(v.dtype) for x in self._turn(q, k))
        q, k, v = (fake_fp8(x, scale) for x, scale in ((q, self.q_scale), (k, self.k_scale), (v, self.v_scale)))
        scores = q @ k.transpose(-2, -1)
        probabilities = fake_fp8(scores.softmax(-1), PROBABILITY_SCALE)
        return rearrange(probabilities @ v, "b h s d -> b s (h d)")


def emulated_layers(graph: BundleGraph, *, hold: bool = False) -> dict[str, nn.Module]:
    """Return the quantized layers of a graph by the names of the modules that they replace.

    There are none if the graph is not quantized.

    Args:
        graph: A component's graph.
        hold: Dequantize each weight once, as `QuantizedLinear` does.
    """
    with reading(graph.path):
        return dict(_layers(graph, hold=hold))


def _layers(graph: BundleGraph, *, hold: bool) -> Iterator[tuple[str, nn.Module]]:
    values = graph.initializers
    yield from _fused_layers(graph, hold=hold)
    for product in graph.model.graph:
        found = _quantized_weight(product)
        if found is None:
            continue
        name = (found.name or "").removesuffix(".weight")
        parts = {part: values.get(f"{name}.{part}") for part in (SCALE, TENSOR_SCALE, DOWN, UP)}
        input_format, parts[INPUT_SCALE] = _input_quantizer(product) or ("", None)
        rest = {part: graph.read_tensor(value) for part, value in parts.items() if value is not None}
        bias = values.get(f"{name}.bias")
        read = None if bias is None else graph.read_tensor(bias)
        yield name, QuantizedLinear(graph.read_tensor(found), read, rest, input_format, hold=hold)
    for name in [name for name in values if name.endswith(".attend.v_scale")]:
        stem = name.removesuffix(".v_scale")
        turned = f"{operand_name(stem, 'q')}_scale" in values  # graphs of before have queries and keys as they are
        names = {part: f"{operand_name(stem, part) if turned else f'{stem}.{part}'}_scale" for part in "qkv"}
        scales = {part: graph.read_tensor(values[name]) for part, name in names.items()}
        if f"{names['q']}_scaled" in values:  # before queries came scaled: the scale is of queries that were not
            scales["q"] = graph.read_tensor(values[f"{names['q']}_scaled"])
        yield stem, QuantizedAttend(scales, turned_in_graphs if turned else None)


def _fused_layers(graph: BundleGraph, *, hold: bool) -> Iterator[tuple[str, nn.Module]]:
    for name, one in weight_only_nodes(graph.model).items():
        rest = {SCALE: graph.read_tensor(one.input("weight_scale"))}
        yield name, QuantizedLinear(graph.read_tensor(one.input("weight")), None, rest, "", hold=hold)
    for one in fused_nodes(graph.model):
        form = one.definition.format
        for layer in one.layers if form.operands else ():
            scale = torch.tensor(one.number(scale_of(layer.product.x)))
            rest = {SCALE: graph.read_tensor(one.input(scale_of(layer.product.weight))), INPUT_SCALE: scale}
            yield (
                layer.name,
                QuantizedLinear(graph.read_tensor(layer.weight), graph.read_tensor(layer.bias), rest, "fp8", hold=hold),
            )
        if form.attention:
            scales = {part: torch.tensor(one.number(scale_of(part))) for part in "qkv"}
            yield f"{one.attention_name}.attend", QuantizedAttend(scales, turned_in_kernels)


def _quantized_weight(product: ir.Node) -> ir.Value | None:
    """Return the FP8 or NVFP4 initializer that a product's second operand is dequantized from."""
    if product.op_type != "MatMul":
        return None
    # behind an addition, too: a weight may hang on its layer's input
    dequantize = _behind(product.inputs[1], "DequantizeLinear", ("Transpose", "Cast", "Add"))
    weight = dequantize.inputs[0] if dequantize else None
    return weight if weight is not None and weight.is_initializer() else None


def _input_quantizer(product: ir.Node) -> tuple[str, ir.Value] | None:
    """Return the format that a product's first operand is rounded to, and its scale."""
    dequantize = _behind(product.inputs[0], "DequantizeLinear")
    if dequantize is None or dequantize.inputs[0] is None:
        return None
    quantize = dequantize.inputs[0].producer()
    assert quantize is not None
    scale = quantize.inputs[1]
    assert scale is not None
    return ("nvfp4" if quantize.domain == TRT_DOMAIN else "fp8"), scale


def _behind(value: ir.Value | None, operator: str, across: tuple[str, ...] = ("Transpose", "Cast")) -> ir.Node | None:
    """Return the operator that a value comes from, behind what only moves or widens it."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in across:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node if node is not None and node.op_type == operator else None

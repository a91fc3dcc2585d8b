"""Puts quantize and dequantize operators into a traced graph, from where TensorRT fuses them into its products.

Weights: DequantizeLinear before the transpose of a linear layer; where activations are not quantized, it hangs on them.
Activations: one pair per input, shared by the layers that read it, quantized in float32. Attention: queries come
scaled, both are turned (`turned_attention`), keys transposed before they are quantized, probabilities have the fixed
scale 1/448, and nothing stands between a dequantization and its product.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from ...engine.components import ElementType, Precision
from ...engine.errors import QuantizationError
from ..fp4 import BLOCK
from ..torch_types import torch_dtype
from .branches import insert_branch
from .constants import constant, whole_numbers
from .formats import FP8_MAX, fp8_scale, nvfp4_scale, round_up
from .fused_nodes import insert_weight_only
from .linears import AttentionNodes, LinearNodes
from .quantized_weights import DOWN, SCALE, TENSOR_SCALE, UP
from .ranges import operand_name, range_of
from .recipes import Fp8, Fp8Weights, LinearFormat, Nvfp4
from .turned_attention import insert_turning

INPUT_SCALE = "input_scale"
PROBABILITY_SCALE = 1 / FP8_MAX
TRT_DOMAIN = "trt"
MIXED_SCALES_OPSET = 23
"""The opset from which on a dequantization may have another type than its scale.

Its scales must then all be float32: TensorRT-RTX 1.7 refuses products whose two operands have scales of different
types.
"""


class GraphQuantizer:
    """Edits one graph in place.

    Args:
        model: The graph.
        precision: What the graph computes in, and in graphs below opset 23 the type of FP8's scales, too.
        ranges: The largest magnitudes of activations: of a layer's input by the layer's name, of an attention's
            operands by `NAME.attend.hadamard_q`, `.hadamard_k` and `.v`.
        fused: Layers that read FP8 weights alone become fused operators.
    """

    def __init__(
        self, model: ir.Model, precision: Precision, ranges: Mapping[str, float], *, fused: bool = False
    ) -> None:
        self.model, self.graph, self.ranges, self._fused = model, model.graph, ranges, fused
        self.dtype = ir.DataType(precision.number.onnx_number)
        opset = model.opset_imports[""]
        assert opset is not None
        self.scale_precision = Precision.FP32 if opset >= MIXED_SCALES_OPSET else precision
        self.scale_dtype = ir.DataType(self.scale_precision.number.onnx_number)
        self._inputs: dict[tuple[int, type, float | None], ir.Value] = {}
        self._nothings: dict[int, ir.Value] = {}

    def quantize(
        self,
        linear: LinearNodes,
        format: LinearFormat,
        *,
        stored_scale: float | None = None,
        input_scale: float | None = None,
    ) -> None:
        """Make a layer read a quantized weight, and its input quantized if the format says so.

        The weight and its scales become initializers without values, named after the weight. An FP8 weight that is
        stored with one scale, `stored_scale`, keeps that; what is dequantized already stays so. A checkpoint's own
        `input_scale` counts instead of the range.

        Raises:
            QuantizationError: There is no range for the layer's input, or it is 0.
        """
        linear.product.name = linear.name
        x = linear.input
        if isinstance(format, Nvfp4):
            linear.transpose.replace_input_with(0, self._nvfp4_weight(linear))
            if format.rank:
                self._add_branch(linear, format.rank)
        elif isinstance(format, Fp8Weights) and self._fused:
            insert_weight_only(self.model, linear, self._fp8_parts(linear, stored_scale))
        else:
            weight = linear.dequantized or self._fp8_weight(linear, stored_scale)
            if isinstance(format, Fp8Weights):
                weight = self._in_its_turn(linear, weight)
            linear.transpose.replace_input_with(0, weight)
        if not isinstance(format, Fp8Weights):
            linear.product.replace_input_with(0, self._quantized_input(linear, x, format, input_scale))

    def _fp8_weight(self, linear: LinearNodes, stored_scale: float | None) -> ir.Value:
        weight, scale = self._fp8_parts(linear, stored_scale)
        axis = {"axis": 0} if stored_scale is None else {}
        return self._dequantize(linear.transpose, weight, scale, f"{linear.name}.weight", **axis)

    def _fp8_parts(self, linear: LinearNodes, stored_scale: float | None) -> tuple[ir.Value, ir.Value]:
        """Return a layer's FP8 weight, and the scale that it is stored with or those of its rows."""
        weight = _renewed(linear.weight, ir.DataType.FLOAT8E4M3FN)
        if stored_scale is not None:
            return weight, self._constant(_part_name(linear, SCALE), torch.tensor(stored_scale))
        return weight, self._weight_part(linear, SCALE, self.scale_dtype, [_extent(weight, 0)])

    def _in_its_turn(self, linear: LinearNodes, weight: ir.Value) -> ir.Value:
        """Make a dequantized weight hang on its layer's input, by adding 0 times a value of it; none if it is empty.

        TensorRT merges the products of one input and writes their dequantized weight out beforehand; on constants alone
        that hangs for all layers at once, and takes more memory than FP8 saves.
        """
        x, before = linear.input, linear.transpose
        if id(x) not in self._nothings:
            assert x.shape is not None
            rank, stem = len(x.shape), f"{linear.name}.turn"
            begin, end, axes = (
                whole_numbers(self.graph, f"turn_{what}_{rank}", values)
                for what, values in (("begin", [0] * rank), ("end", [1] * rank), ("axes", list(range(rank))))
            )
            value = self._insert(before, "Slice", [x, begin, end, axes], f"{stem}_slice")
            value = self._insert(before, "Cast", [value], f"{stem}_wide", to=int(ir.DataType.FLOAT))
            value = self._insert(before, "ReduceSum", [value], f"{stem}_sum", keepdims=0)
            zero = self._constant("turn_zero", torch.tensor(0.0), ir.DataType.FLOAT)
            value = self._insert(before, "Mul", [value, zero], f"{stem}_nothing")
            self._nothings[id(x)] = self._insert(before, "Cast", [value], f"{stem}_cast", to=int(self.dtype))
        return self._insert(before, "Add", [weight, self._nothings[id(x)]], f"{linear.name}.weight_in_turn")

    def _nvfp4_weight(self, linear: LinearNodes) -> ir.Value:
        weight = _renewed(linear.weight, ir.DataType.FLOAT4E2M1)
        outputs, inputs = _extent(weight, 0), _extent(weight, 1)
        blocks = self._weight_part(linear, SCALE, ir.DataType.FLOAT8E4M3FN, [outputs, inputs // BLOCK])
        scale = self._weight_part(linear, TENSOR_SCALE, ir.DataType.FLOAT, [])
        return self._dequantize_blocks(linear.transpose, weight, blocks, scale, f"{linear.name}.weight")

    def _weight_part(self, linear: LinearNodes, part: str, dtype: ir.DataType, shape: list[int]) -> ir.Value:
        name = _part_name(linear, part)
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.graph.initializers[name] = value
        return value

    def _quantized_input(self, linear: LinearNodes, x: ir.Value, format: Fp8 | Nvfp4, stored: float | None) -> ir.Value:
        key = id(x), type(format), stored
        if key not in self._inputs:
            amax = range_of(self.ranges, linear.name) if stored is None else None
            if isinstance(format, Fp8):
                value = self._fp8_scale(amax) if amax is not None else self._in_scale_type(torch.tensor(stored))
                scale = self._constant(f"{linear.name}.{INPUT_SCALE}", value)
                self._inputs[key] = self._fp8_pair(linear.product, x, scale, f"{linear.name}.input")
            else:
                value = nvfp4_scale(torch.tensor(amax)) if amax is not None else torch.tensor(stored)
                scale = self._constant(f"{linear.name}.{INPUT_SCALE}", value, ir.DataType.FLOAT)
                self._inputs[key] = self._nvfp4_pair(linear.product, x, scale, f"{linear.name}.input")
        return self._inputs[key]

    def quantize_attention(self, attention: AttentionNodes) -> None:
        """Take an Attention operator apart and quantize the operands of both its products to FP8.

        Raises:
            QuantizationError: There is no range for an operand, it is 0, the operator scales its queries itself, or
                Hadamard's matrix has not the width of its heads.
        """
        node, name = attention.node, f"{attention.name}.attend"
        q, k, v = (value for value in node.inputs[:3] if value is not None)
        scale = node.attributes.get_float("scale", 0.0)
        if scale != 1.0:  # by a product of its own, after the queries whose range is known
            raise QuantizationError(
                f"{attention.name} scales its queries itself, as exports by earlier versions do; export again"
            )
        ranges = {part: range_of(self.ranges, operand_name(name, part)) for part in "qkv"}
        q, k, *turned = insert_turning(self.graph, partial(self._insert, node), q, k, name, self.dtype)
        consts = {
            part: self._constant(f"{operand_name(name, part)}_scale", self._fp8_scale(ranges[part] * by))
            for part, by in zip("qkv", (*turned, 1.0), strict=True)
        }
        probability = self._constant(f"{name}.p_scale", torch.tensor(PROBABILITY_SCALE))
        queries = self._fp8_pair(node, q, consts["q"], f"{name}.q")
        transposed = self._insert(node, "Transpose", [k], f"{name}.k_transpose", perm=[0, 1, 3, 2])
        keys = self._fp8_pair(node, transposed, consts["k"], f"{name}.k")
        scores = self._insert(node, "MatMul", [queries, keys], f"{name}.scores")
        probabilities = self._insert(node, "Softmax", [scores], f"{name}.softmax", axis=-1)
        probabilities = self._fp8_pair(node, probabilities, probability, f"{name}.p")
        values = self._fp8_pair(node, v, consts["v"], f"{name}.v")
        result = self._insert(node, "MatMul", [probabilities, values], f"{name}.mix")
        output = node.outputs[0]
        result.shape, result.type = output.shape, output.type
        ir.convenience.replace_all_uses_with(output, result)
        self.graph.remove(node, safe=True)

    def _add_branch(self, linear: LinearNodes, rank: int) -> None:
        outputs, inputs = _extent(linear.weight, 0), _extent(linear.weight, 1)
        rank = min(rank, outputs, inputs)
        down, up = (
            self._turned_part(linear, part, shape) for part, shape in ((DOWN, [rank, inputs]), (UP, [outputs, rank]))
        )
        insert_branch(self.graph, linear, down, up, f"{linear.name}.lora")

    def _turned_part(self, linear: LinearNodes, part: str, shape: list[int]) -> ir.Value:
        weight, stem = self._weight_part(linear, part, self.dtype, shape), part.removesuffix(".weight")
        return self._insert(linear.product, "Transpose", [weight], f"{linear.name}.{stem}.transpose", perm=[1, 0])

    def _fp8_pair(self, before: ir.Node, x: ir.Value, scale: ir.Value, name: str) -> ir.Value:
        zero = self._constant("fp8_zero", torch.tensor(0.0), ir.DataType.FLOAT8E4M3FN)
        wide_scale = scale
        if self.scale_dtype != ir.DataType.FLOAT:
            # here values and scale must be of one type, and TensorRT multiplies by the reciprocal, rounded to that type
            x = self._insert(before, "Cast", [x], f"{name}_wide", to=int(ir.DataType.FLOAT))
            assert scale.name is not None
            assert scale.const_value is not None
            value = torch.from_numpy(scale.const_value.numpy().astype("float32"))
            wide_scale = self._constant(f"{scale.name}_wide", value, ir.DataType.FLOAT)
        quantized = self._insert(before, "QuantizeLinear", [x, wide_scale, zero], f"{name}_quantize")
        return self._dequantize(before, quantized, scale, name)

    def _nvfp4_pair(self, before: ir.Node, x: ir.Value, scale: ir.Value, name: str) -> ir.Value:
        self.model.opset_imports[TRT_DOMAIN] = 1
        quantize = ir.node(
            "TRT_FP4DynamicQuantize",
            [x, scale],
            {"axis": -1, "block_size": BLOCK, "scale_type": int(ir.DataType.FLOAT8E4M3FN)},
            domain=TRT_DOMAIN,
            num_outputs=2,
            name=f"{name}_quantize",
        )
        codes, blocks = quantize.outputs
        codes.name, blocks.name = f"{name}_codes", f"{name}_block_scales"
        self.graph.insert_before(before, quantize)
        return self._dequantize_blocks(before, codes, blocks, scale, name)

    def _dequantize(self, before: ir.Node, x: ir.Value, scale: ir.Value, name: str, **attributes: Any) -> ir.Value:
        if self.scale_dtype != self.dtype:
            attributes["output_dtype"] = int(self.dtype)
        return self._insert(before, "DequantizeLinear", [x, scale], f"{name}_dequantize", **attributes)

    def _dequantize_blocks(
        self, before: ir.Node, codes: ir.Value, blocks: ir.Value, scale: ir.Value, name: str
    ) -> ir.Value:
        steps = self._insert(before, "DequantizeLinear", [blocks, scale], f"{name}_steps")
        wide = self._insert(before, "DequantizeLinear", [codes, steps], f"{name}_dequantize", axis=-1, block_size=BLOCK)
        if self.dtype == ir.DataType.FLOAT:
            return wide
        return self._insert(before, "Cast", [wide], f"{name}_cast", to=int(self.dtype))

    def _insert(
        self, before: ir.Node, operator: str, inputs: Iterable[ir.Value], name: str, **attributes: Any
    ) -> ir.Value:
        node = ir.node(operator, list(inputs), attributes, name=name)
        node.outputs[0].name = f"{name}_output"
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _in_scale_type(self, scale: Tensor) -> Tensor:
        """Return a scale rounded up to the type of scales, in float32."""
        dtype = torch_dtype(ElementType.ACTIVATION.resolve(self.scale_precision).number)
        return round_up(scale.to(torch.float32), dtype).to(torch.float32)

    def _fp8_scale(self, amax: float) -> Tensor:
        dtype = torch_dtype(ElementType.ACTIVATION.resolve(self.scale_precision).number)
        return fp8_scale(torch.tensor(amax), dtype).to(torch.float32)

    def _constant(self, name: str, value: Tensor, dtype: ir.DataType | None = None) -> ir.Value:
        """Add a scalar to the graph itself, of the scales' type unless it is said."""
        dtype = dtype or self.scale_dtype
        return constant(self.graph, name, ir.tensor(value.to(torch.float32).numpy().astype(dtype.numpy()), dtype=dtype))


def _renewed(weight: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Return the initializer, of another type and without the values it had."""
    weight.type, weight.const_value = ir.TensorType(dtype), None  # copies of a graph share their values' types
    return weight


def _part_name(linear: LinearNodes, part: str) -> str:
    return (linear.weight.name or "").removesuffix("weight") + part


def _extent(value: ir.Value, axis: int) -> int:
    assert value.shape is not None
    extent = value.shape[axis]
    assert isinstance(extent, int)
    return extent

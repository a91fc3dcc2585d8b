"""Builds the bodies of ONNX functions as data, without onnx: nodes of standard operators, and their attributes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...engine.components import Precision
from ...engine.number_types import NUMBER_TYPES

OPSET = 23
FLOAT32 = NUMBER_TYPES["fp32"].onnx_number
FP8 = NUMBER_TYPES["fp8"].onnx_number
SAMPLED_TOKENS = 64
"""The number of tokens, or up to twice as many, that the mean of keys is taken over."""
END = (1 << 63) - 1
"""The end of a slice that goes to the last element."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Stands for an attribute of the function, whose value each call gives; `kind` is its type, float or int."""

    name: str
    kind: type


@dataclass(frozen=True, slots=True)
class Fp8Zero:
    """Stands for the scalar 0 in FP8: an operator that quantizes takes its output's type from it."""


Attribute = int | float | str | tuple[int, ...] | Reference | Fp8Zero


@dataclass(frozen=True, slots=True)
class Node:
    """Describes a node of a standard operator."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: tuple[tuple[str, Attribute], ...]


@dataclass(slots=True)
class Body:
    """Collects the nodes of a body that computes in `precision`, but for what it says to be float32.

    The methods are named for what they compute; each returns the name of its result.
    """

    precision: Precision
    nodes: list[Node] = field(default_factory=list)

    def node(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(Node(operator, inputs, name, tuple(sorted(attributes.items()))))
        return name

    def give(self, value: str, output: str) -> None:
        """Make a value an output of the function."""
        self.nodes.append(Node("Identity", (value,), output, ()))

    def numbers(self, *values: int) -> str:
        return self.node("Constant", value_ints=values)

    def number(self, value: float | Reference) -> str:
        return self.node("Constant", value_float=value)

    def wide(self, x: str) -> str:
        return self.node("Cast", x, to=FLOAT32)

    def narrow(self, x: str) -> str:
        return self.node("Cast", x, to=self.precision.number.onnx_number)

    def result(self, x: str, scale: str | None) -> str:
        """Round float32 `x` to the function's type, or to FP8 by the scale that an attribute names."""
        return self.narrow(x) if scale is None else self.quantized(x, self.number(Reference(scale, float)))

    def quantized(self, x: str, scale: str) -> str:
        return self.node("QuantizeLinear", x, scale, self.node("Constant", value=Fp8Zero()))

    def dequantized(self, x: str, scale: str) -> str:
        return self.node("DequantizeLinear", x, scale, output_dtype=self.precision.number.onnx_number)

    def linear(
        self, x: str, weight: str, bias: str, scale: str | None, *, branch: tuple[str, str] | None = None
    ) -> str:
        """Return x W^T + b; FP8 weights have a scale as an input, named after them. `x` comes dequantized.

        A branch, A (inputs, rank) and B (rank, outputs), adds (x A) B. Its x has another axis, or TensorRT-RTX would
        make one product of both, and copy the weight to A at every run.
        """
        if scale is not None:
            weight = self.dequantized(weight, scale)
        product = self.node("MatMul", x, self.node("Transpose", weight, perm=(1, 0)))
        if branch is not None:
            first = self.numbers(0)
            narrow = self.node("MatMul", self.node("Unsqueeze", x, first), branch[0])
            narrow = self.node("Squeeze", narrow, first)
            product = self.node("Add", product, self.node("MatMul", narrow, branch[1]))
        return self.node("Add", product, bias)

    def weight_only(self, x: str, weight: str, scales: str) -> str:
        """Return x W^T of FP8 weights with a scale, or one for each row, computed in the function's type.

        The weight that is dequantized hangs on its input, by 0 times a value of it. On constants alone, a runtime that
        folds them would do it once for all layers, and take more memory than FP8 saves.
        """
        own = self.precision.number.onnx_number
        wide = self.node("DequantizeLinear", weight, scales, axis=0, output_dtype=own)
        value = self.node("Slice", x, self.numbers(0, 0, 0), self.numbers(1, 1, 1), self.numbers(0, 1, 2))
        nothing = self.node("Mul", self.node("ReduceSum", self.wide(value), keepdims=0), self.number(0.0))
        turn = self.node("Add", wide, self.narrow(nothing))
        return self.node("MatMul", x, self.node("Transpose", turn, perm=(1, 0)))

    def gelu(self, x: str) -> str:
        """Return tanh-GELU in float32."""
        return self.node("Gelu", self.wide(x), approximate="tanh")

    def gated(self, x: str, change: str, gate: str) -> str:
        """Return x + gate * change, rounded once."""
        product = self.node("Mul", self.wide(gate), self.wide(change))
        return self.narrow(self.node("Add", self.wide(x), product))

    def modulated(self, x: str, shift: str, scale: str) -> str:
        """Return layer norm, then `* (1 + scale) + shift`, in float32."""
        x, axes = self.wide(x), self.numbers(-1)
        normed = self._standardized(x, axes)
        factor = self.node("Add", self.wide(scale), self.number(1.0))
        return self.node("Add", self.node("Mul", normed, factor), self.wide(shift))

    def normed(self, x: str, weight: str) -> str:
        """Return the RMS norm of each head of (b, s, h * d), as (b, s, h, d) float32."""
        zeros = self.numbers(0, 0, -1)
        heads = self.node("Reshape", x, self.node("Concat", zeros, self.node("Shape", weight), axis=0))
        wide = self.wide(heads)
        normed = self.node("Div", wide, self._root_mean_square(wide, self.numbers(-1)))
        return self.node("Mul", normed, self.wide(weight))

    def group_normed(self, x: str, weight: str, bias: str) -> str:
        """Return the group norm of pixels (b, h, w, c) in float32, of as many groups as `num_groups` says."""
        rows = self.node("Concat", self.numbers(0, -1), self.node("Shape", weight), axis=0)
        shape = self.node("Concat", self.numbers(0, 0), self.length("num_groups"), self.numbers(-1), axis=0)
        grouped = self.node("Reshape", self.node("Reshape", self.wide(x), rows), shape)
        axes = self.numbers(1, 3)
        normed = self.node("Reshape", self._standardized(grouped, axes), self.node("Shape", x))
        return self.node("Add", self.node("Mul", normed, self.wide(weight)), self.wide(bias))

    def silu(self, x: str) -> str:
        return self.node("Mul", x, self.node("Sigmoid", x))

    def convolved(self, x: str, weight: str, bias: str, *, pads: tuple[int, ...], stride: int) -> str:
        """Return the convolution of pixels (b, h, w, c); `pads` are those above, left, below and right."""
        planes = self.node("Transpose", x, perm=(0, 3, 1, 2))
        result = self.node("Conv", planes, weight, bias, pads=pads, strides=(stride, stride))
        return self.node("Transpose", result, perm=(0, 2, 3, 1))

    def doubled(self, x: str) -> str:
        """Return pixels (b, h, w, c) twice in height and width."""
        repeated = x
        for axis in (3, 2):
            single = self.node("Unsqueeze", repeated, self.numbers(axis))
            repeated = self.joined(single, single, axis)
        return self.node("Reshape", repeated, self.node("Mul", self.node("Shape", x), self.numbers(1, 2, 2, 1)))

    def _standardized(self, x: str, axes: str) -> str:
        """Return float32 `x` less its mean, by its deviation, over `axes`."""
        centred = self.node("Sub", x, self.node("ReduceMean", x, axes, keepdims=1))
        return self.node("Div", centred, self._root_mean_square(centred, axes))

    def _root_mean_square(self, x: str, axes: str) -> str:
        mean = self.node("ReduceMean", self.node("Mul", x, x), axes, keepdims=1)
        return self.node("Sqrt", self.node("Add", mean, self.number(1e-6)))

    def rotated(self, x: str, cos: str, sin: str) -> str:
        """Rotate the interleaved pairs of heads (b, s, h, d) float32 by tables (s, d / 2); give (b, s, h * d)."""
        pairs = self.node("Reshape", x, self.numbers(0, 0, 0, -1, 2))
        axis = self.numbers(-1)
        even = self.node("Gather", pairs, self.node("Constant", value_int=0), axis=-1)
        odd = self.node("Gather", pairs, self.node("Constant", value_int=1), axis=-1)
        cos, sin = (self.node("Unsqueeze", table, self.numbers(1)) for table in (cos, sin))
        first = self.node("Sub", self.node("Mul", even, cos), self.node("Mul", odd, sin))
        second = self.node("Add", self.node("Mul", even, sin), self.node("Mul", odd, cos))
        turned = self.node("Concat", self.node("Unsqueeze", first, axis), self.node("Unsqueeze", second, axis), axis=-1)
        return self.node("Reshape", turned, self.numbers(0, 0, -1))

    def scaled(self, x: str, weight: str) -> str:
        """Return float32 queries times 1 / sqrt(d), d the width of a norm's weight."""
        width = self.node("Cast", self.node("Shape", weight), to=FLOAT32)
        return self.node("Mul", x, self.node("Reciprocal", self.node("Sqrt", width)))

    def smoothed(self, keys: str) -> str:
        """Return float32 keys (b, s, h * d) less their mean over every (s / 64)th token.

        Softmax does not see what all keys have in common, and FP8 rounds less without it.
        """
        length, axis = self.node("Shape", keys, start=1, end=2), self.numbers(1)
        counted = self.node("Div", self.node("Cast", length, to=FLOAT32), self.number(float(SAMPLED_TOKENS)))
        step = self.node("Max", self.node("Floor", counted), self.number(1.0))
        sampled = self.node("Equal", self.node("Mod", self._indices(length), step, fmod=1), self.number(0.0))
        taken = self.node("Cast", sampled, to=FLOAT32)
        shares = self.node("Div", taken, self.node("ReduceSum", taken, keepdims=0))
        weighted = self.node("Mul", keys, self.node("Unsqueeze", shares, axis))
        return self.node("Sub", keys, self.node("ReduceSum", weighted, axis, keepdims=1))

    def _indices(self, length: str) -> str:
        """Return the float32 numbers from 0 to below a one-element list, of a shape that ONNX's inference sees."""
        ones = self.node("Add", self.node("ConstantOfShape", length), self.number(1.0))
        return self.node("CumSum", ones, self.node("Constant", value_int=0), exclusive=1)

    def hadamard(self, x: str, weight: str) -> str:
        """Return float32 heads (b, s, h * d) by Hadamard's matrix over sqrt(d), d the width of a norm's weight.

        It is orthogonal, so products of queries and keys stay; what is large in one channel is spread over all.
        """
        shape, axis = self.node("Shape", weight), self.numbers(1)
        width = self.node("Cast", self.node("Squeeze", shape), to=FLOAT32)
        powers = self.node("Cast", self.numbers(*(1 << bit for bit in range(8))), to=FLOAT32)
        two = self.number(2.0)
        halves = self.node("Floor", self.node("Div", self.node("Unsqueeze", self._indices(shape), axis), powers))
        bits = self.node("Mod", halves, two, fmod=1)
        shared = self.node("MatMul", bits, self.node("Transpose", bits, perm=(1, 0)))
        odd = self.node("Mul", self.node("Mod", shared, two, fmod=1), two)
        signs = self.node("Sub", self.number(1.0), odd)
        matrix = self.node("Div", signs, self.node("Sqrt", width))
        heads = self.node("Reshape", x, self.node("Concat", self.numbers(0, 0, -1), shape, axis=0))
        return self.node("Reshape", self.node("MatMul", heads, matrix), self.numbers(0, 0, -1))

    def attention(self, q: str, k: str, v: str) -> str:
        """Return the attention of (b, s, h * d) each, whose queries come scaled."""
        heads = Reference("num_heads", int)
        return self.node("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads, scale=1.0)

    def fp8_attention(self, q: str, k: str, v: str) -> str:
        """Return the attention of FP8 operands by the scales of attributes; probabilities have the scale 1/448."""
        count = self.length("num_heads")
        shape = self.node("Concat", self.numbers(0, 0), count, self.numbers(-1), axis=0)

        def heads(x: str, part: str, order: tuple[int, ...]) -> str:
            wide = self.dequantized(x, self.number(Reference(f"{part}_scale", float)))
            return self.node("Transpose", self.node("Reshape", wide, shape), perm=order)

        scores = self.node("MatMul", heads(q, "q", (0, 2, 1, 3)), heads(k, "k", (0, 2, 3, 1)))
        probabilities, step = self.node("Softmax", self.wide(scores), axis=-1), self.number(1 / 448)
        probabilities = self.dequantized(self.quantized(probabilities, step), step)
        mixed = self.node("MatMul", probabilities, heads(v, "v", (0, 2, 1, 3)))
        return self.node("Reshape", self.node("Transpose", mixed, perm=(0, 2, 1, 3)), self.numbers(0, 0, -1))

    def joined(self, first: str, second: str, axis: int) -> str:
        return self.node("Concat", first, second, axis=axis)

    def rows(self, x: str, begin: str, end: str) -> str:
        """Return the tokens of (b, s, c) from `begin` to `end`, one-element lists."""
        return self.node("Slice", x, begin, end, self.numbers(1))

    def length(self, name: str) -> str:
        """Return an attribute of whole numbers as a one-element list."""
        return self.node("Reshape", self.node("Constant", value_int=Reference(name, int)), self.numbers(1))

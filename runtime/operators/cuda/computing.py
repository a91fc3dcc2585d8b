"""Computes each fused operator of tokens from kernels and library calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from ...device.launch import POINTER
from ..definition import Definition, Format, Product, scale_of
from .attending import Attending
from .branches import BranchProducts
from .enqueuing import Enqueuing
from .heads import HeadsCall, enqueue_heads
from .kernels import Kernels
from .products import LinearCall, Matrix
from .rounding import enqueue_rounding
from .sizes import BF16_BYTES, PACK, aligned
from .tensors import Shape, Tensors


class Computing(Enqueuing):
    """Computes one operator in one format; each method for an operator allocates its outputs.

    Args:
        kernels: What it is computed with.
        definition: The operator and its format.
        tensors: Its tensors in this call.
    """

    def __init__(self, kernels: Kernels, definition: Definition, tensors: Tensors) -> None:
        super().__init__(kernels.device)
        self._kernels, self._t = kernels, tensors
        self._definition, self._operator = definition, definition.operator
        self._format: Format = definition.format
        self._branches = BranchProducts(kernels, self)

    def run(self) -> None:
        """Compute the operator."""
        _COMPUTED[self._operator.name](self)

    def _modulate(self) -> None:
        t, shape = self._t, self._t.tokens("x")
        gated, normed = "change" in self._operator.values, "shift" in self._operator.values
        vector = (shape[0], 1, shape[2])
        vectors = [t.address(name, vector) for name in ("shift", "scale")] if normed else [0, 0]
        change = t.address("change", shape) if gated else 0
        gate = t.address("gate", vector) if gated else 0
        fp8 = self._format.result
        function = self._device.function("modulate", HIDDEN=shape[2], GATED=gated, NORMED=normed, FP8=fp8)
        packs = shape[2] // PACK
        self._launch(
            function,
            shape[0] * shape[1],
            1024 if packs >= 1024 else -(-packs // 32) * 32,
            (
                (t.address("x", shape), POINTER),
                (change, POINTER),
                (gate, POINTER),
                *((vector, POINTER) for vector in vectors),
                (t.output("tokens", shape) if gated else 0, POINTER),
                (t.output("normed", shape) if normed else 0, POINTER),
                (shape[1], ctypes.c_longlong),
                (1 / t.scale("result_scale") if fp8 else 1.0, ctypes.c_float),
            ),
        )

    def _quantize(self) -> None:
        shape = self._t.tokens("x")
        matrix = self._t.matrix("x", shape)
        self._rounded(matrix, self._t.output("y", shape), shape[2], self._t.scale("result_scale"))

    def _linear(self) -> None:
        (product,) = self._operator.products
        t, shape = self._t, self._t.tokens("x")
        outputs = t.outputs_of(product.weight)
        y = t.output("y", (*shape[:2], outputs))
        result = Matrix(address=y, rows=shape[0] * shape[1], columns=outputs, stride=outputs, fp8=self._format.result)
        self._multiply(product, t.matrix("x", shape), result, gelu=self._operator.name == "LinearGelu")

    def _multiply(self, product: Product, x: Matrix, y: Matrix, *, gelu: bool = False) -> None:
        """Enqueue a linear layer from `x` to `y`. cuBLASLt gives FP8 of FP8 alone, so else it is rounded afterwards."""
        if y.fp8 and not x.fp8:
            address = self._device.scratch(BF16_BYTES * y.rows * y.columns)
            wide = Matrix(address=address, rows=y.rows, columns=y.columns, stride=y.columns)
            self._multiply(product, x, wide, gelu=gelu)
            self._rounded(wide, y.address, y.stride, self._t.scale("result_scale"))
            return
        layer = self._t.layer(product, x.columns, y.columns)
        constant = self._device.constant
        call = LinearCall(
            x=x,
            weight=layer.weight,
            bias=layer.bias,
            y=y,
            gelu=gelu,
            x_scale=constant(self._t.scale(scale_of(product.x))) if x.fp8 else 0,
            weight_scale=layer.weight_scale,
            y_inverse=constant(1 / self._t.scale("result_scale")) if y.fp8 else 0,
        )
        if self._format.branches:
            matrices = self._t.branch(product, x.columns, y.columns)
            call = self._branches.added(call, *matrices, self._t.scale(scale_of(product.x)) if x.fp8 else 1.0)
        self._enqueue(partial(self._kernels.products, call, self.stream))

    def _joint_linear(self) -> None:
        t, shape = self._t, self._t.tokens("joint")
        pictures, tokens, _ = shape
        length = t.count("text_length", at_most=tokens - 1)
        joint = t.matrix("joint", shape)
        pieces = (("text_change", 0, length), ("image_change", length, tokens - length))
        for product, (name, first, count) in zip(self._operator.products, pieces, strict=True):
            outputs = t.outputs_of(product.weight)
            address = t.output(name, (pictures, count, outputs))
            result = Matrix(address=address, rows=pictures * count, columns=outputs, stride=outputs)
            for picture in range(pictures):
                x = _rows(joint, picture * tokens + first, count)
                self._multiply(product, x, _rows(result, picture * count, count))

    def _heads(self) -> None:
        t, shape = self._t, self._t.tokens("x")
        queried = t.tokens("queried")
        if (queried[0], queried[2]) != (shape[0], shape[2]):
            raise t.refusal("queried must be of the pictures and the width of x")
        sources = {"q": ("queried", queried), "k": ("x", shape), "v": ("x", shape)}
        matrices, results = self._head_outputs({name: one for name, (_, one) in sources.items()})
        products = dict(zip("qkv", self._operator.products, strict=True))
        norms = {"q": ("query_norm", "query_norm"), "k": ("key_norm", "key_norm")}
        tables = {"q": ("queried_cos", "queried_sin"), "k": ("cos", "sin")}

        def give(name: str) -> None:
            source, of = sources[name]
            self._multiply(products[name], t.matrix(source, of), matrices[name])
            if name == "v":
                self._values(matrices[name], results[name])
            else:
                self._normed(name, matrices[name], results[name], of, norms[name], tables[name], 0)

        self._give_heads(give)

    def _joint_heads(self) -> None:
        t, text, image = self._t, self._t.tokens("text"), self._t.tokens("image")
        if (text[0], text[2]) != (image[0], image[2]):
            raise t.refusal("text must be of the pictures and the width of image")
        shape = (image[0], text[1] + image[1], image[2])
        matrices, results = self._head_outputs(dict.fromkeys("qkv", shape))
        products = dict(
            zip("qkv", zip(self._operator.products[:3], self._operator.products[3:], strict=True), strict=True)
        )
        norms = {"q": ("text_query_norm", "query_norm"), "k": ("text_key_norm", "key_norm")}

        def give(name: str) -> None:
            for product, of, first in zip(products[name], (text, image), (0, text[1]), strict=True):
                x, y = t.matrix(product.x, of), matrices[name]
                for picture in range(shape[0]):
                    part = _rows(x, picture * of[1], of[1])
                    self._multiply(product, part, _rows(y, picture * shape[1] + first, of[1]))
            if name == "v":
                self._values(matrices[name], results[name])
            else:
                self._normed(name, matrices[name], results[name], shape, norms[name], ("cos", "sin"), text[1])

        self._give_heads(give)

    def _give_heads(self, give: Callable[[str], None]) -> None:
        """Enqueue queries, keys and values, each by `give`: one after another, or beside each other.

        Beside each other where keys lose their mean over ranks, for which the GPU waits, if nothing shares scratch
        memory, as branches do.
        """
        lanes = self._kernels.lanes if self._format.result and not self._format.branches else {}
        if not lanes:
            for name in "qkv":
                give(name)
            return
        for name, lane in lanes.items():
            with self.beside(lane):
                give(name)
        give("v")
        for lane in lanes.values():
            self.join(lane)

    def _head_outputs(self, shapes: Mapping[str, Shape]) -> tuple[dict[str, Matrix], dict[str, int]]:
        """Return where products are written, and where results are: the same, or scratch if results are FP8."""
        results = {name: self._t.output(name, shape) for name, shape in shapes.items()}
        addresses = dict(results)
        if self._format.result:
            sizes = {name: BF16_BYTES * shape[0] * shape[1] * shape[2] for name, shape in shapes.items()}
            start = self._device.scratch(sum(map(aligned, sizes.values())))
            for name, size in sizes.items():
                addresses[name], start = start, start + aligned(size)
        matrices = {
            name: Matrix(address=addresses[name], rows=shape[0] * shape[1], columns=shape[2], stride=shape[2])
            for name, shape in shapes.items()
        }
        return matrices, results

    def _normed(
        self,
        name: str,
        matrix: Matrix,
        result: int,
        shape: Shape,
        norms: tuple[str, str],
        tables: tuple[str, str],
        first_tokens: int,
    ) -> None:
        """Enqueue norm and rotation of queries or keys; the first tokens have a norm of their own."""
        t, fp8, exchange = self._t, self._format.result, self._kernels.exchange
        width = t.width(norms[1], shape[2])
        first, weight = (t.address(norm, (width,)) for norm in norms)
        cos, sin = (t.address(table, (shape[1], width // 2)) for table in tables)
        enqueue_heads(
            self,
            self._device,
            HeadsCall(
                x=matrix.address,
                result=result,
                weights=(first, weight),
                tables=(cos, sin),
                pictures=shape[0],
                tokens=shape[1],
                first_tokens=first_tokens,
                heads=shape[2] // width,
                width=width,
                keys=name == "k",
                scale=t.scale(scale_of(name)) if fp8 else None,
            ),
            None if exchange is None else partial(exchange.average, self),
        )

    def _values(self, matrix: Matrix, result: int) -> None:
        if self._format.result:
            self._rounded(matrix, result, matrix.columns, self._t.scale("v_scale"))

    def _rounded(self, matrix: Matrix, result: int, stride: int, scale: float) -> None:
        enqueue_rounding(self, self._device, matrix, result, stride=stride, scale=scale)

    def _attend(self) -> None:
        shape = self._t.tokens("q")
        attending = Attending(self._kernels, self._format, self._t, self)
        attending.start(self._t.output("mixed", shape), shape[2])
        attending.finish()

    def _attend_beside_gelu(self) -> None:
        (product,) = self._operator.products
        t, queries, shape = self._t, self._t.tokens("q"), self._t.tokens("x")
        if queries[:2] != shape[:2]:
            raise t.refusal("x must be of the pictures and tokens of q")
        attending = Attending(self._kernels, self._format, t, self)
        outputs, hidden = t.outputs_of(product.weight), queries[2]
        width = hidden + outputs
        both = t.output("both", (*shape[:2], width))
        fp8 = self._format.result
        beside = both + hidden * (1 if fp8 else BF16_BYTES)
        result = Matrix(address=beside, rows=shape[0] * shape[1], columns=outputs, stride=width, fp8=fp8)
        attending.start(both, width)
        self._multiply(product, t.matrix("x", shape), result, gelu=True)
        attending.finish()


def _rows(matrix: Matrix, first: int, count: int) -> Matrix:
    """Return some rows of a matrix."""
    item = 1 if matrix.fp8 else BF16_BYTES
    return replace(matrix, address=matrix.address + first * matrix.stride * item, rows=count)


_COMPUTED: Mapping[str, Callable[[Computing], None]] = {
    "Quantize": Computing._quantize,
    "Modulate": Computing._modulate,
    "Gate": Computing._modulate,
    "GateModulate": Computing._modulate,
    "Linear": Computing._linear,
    "LinearGelu": Computing._linear,
    "Heads": Computing._heads,
    "JointHeads": Computing._joint_heads,
    "Attend": Computing._attend,
    "AttendBesideGelu": Computing._attend_beside_gelu,
    "JointLinear": Computing._joint_linear,
}

"""Computes the attention of one operator, alone or with the ranks that share its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..definition import Format, scale_of
from .attention import AttentionCall, AttentionShape
from .enqueuing import Enqueuing
from .exchange import UNIT, Divided, Exchange, divided_tokens
from .kernels import Kernels
from .products import Matrix
from .rounding import enqueue_rounding
from .sizes import BF16_BYTES
from .tensors import Tensors
from .wide_attention import WIDEST


class Attending:
    """Computes attention of an operator's q, k and v; all is checked when it is made.

    Where ranks share the tokens, what is enqueued between `start` and `finish` runs beside their exchange.

    Args:
        kernels: What it is computed with.
        form: The operator's format.
        tensors: Its tensors in this call.
        to: What remembers its launches.
    """

    def __init__(self, kernels: Kernels, form: Format, tensors: Tensors, to: Enqueuing) -> None:
        self._kernels, self._device, self._form, self._to = kernels, kernels.device, form, to
        t, (pictures, queries, hidden), keys = tensors, tensors.tokens("q"), tensors.tokens("k")
        if (keys[0], keys[2]) != (pictures, hidden):
            raise t.refusal("k must be of the pictures and the width of q")
        heads = t.count("num_heads", at_most=hidden)
        width = hidden // heads
        if width * heads != hidden or width % 8:
            raise t.refusal(f"{heads} heads do not divide {hidden} into widths of multiples of 8")
        if width > WIDEST and self._is_rounded:  # both would take the same scratch memory
            raise t.refusal(f"heads of width {width} have no kernel for attention in bf16 with a result in FP8")
        self._operands = [t.address("q", (pictures, queries, hidden)), t.address("k", keys), t.address("v", keys)]
        self._scale = t.scale("result_scale") if form.result else 1.0
        self._scales: dict[str, int] = {}
        if form.attention:
            self._scales = {f"{name}_scale": self._device.constant(t.scale(scale_of(name))) for name in "qkv"}
            self._scales["result_inverse"] = self._device.constant(1 / self._scale)
        self._shape = AttentionShape(
            pictures=pictures,
            queries=queries,
            keys=keys[1],
            heads=heads,
            width=width,
            stride=hidden,
            fp8=form.attention,
        )
        self._shared = None if kernels.exchange is None else _Shared(kernels.exchange, self._shape, tensors)

    def start(self, result: int, stride: int) -> None:
        """Enqueue attention, or what comes before it if tokens are shared.

        Rows of the result begin `stride` values apart.
        """
        self._result, self._stride = result, stride
        if self._shared is not None:
            exchange = self._shared.exchange
            with self._to.beside(exchange.lane):
                self._gathered = exchange.gather(self._to, self._operands, self._shared.operands)
            return
        shape, wide = replace(self._shape, stride=stride), 0
        if self._is_rounded:
            wide = self._device.scratch(BF16_BYTES * shape.pictures * shape.queries * shape.heads * shape.width)
        self._mix(shape, self._operands, result, wide)

    def finish(self) -> None:
        """Enqueue attention of shared tokens, and the way back of its result."""
        shared, form = self._shared, self._form
        if shared is None:
            return
        item, shape = 1 if form.result else BF16_BYTES, shared.shape
        layout = shared.result(item)
        self._to.join(shared.exchange.lane)
        mixed, *wide = shared.exchange.places(layout, *([shared.result(BF16_BYTES)] if self._is_rounded else []))
        self._mix(shape, self._gathered, mixed, *wide)
        shared.exchange.scatter(self._to, mixed, layout, self._result, item * self._stride)

    @property
    def _is_rounded(self) -> bool:
        """True if a kernel rounds the result: cuDNN gives FP8 of FP8 alone."""
        return self._form.result and not self._form.attention

    def _mix(self, shape: AttentionShape, operands: Sequence[int], result: int, wide: int = 0) -> None:
        """Enqueue attention; what a kernel rounds lies at `wide` before."""
        q, k, v = operands
        call, enqueue = AttentionCall(q=q, k=k, v=v, result=result, **self._scales), self._to.enqueue
        if not self._is_rounded:
            enqueue(partial(self._kernels.attention, shape, call))
            return
        rows, columns = shape.pictures * shape.queries, shape.heads * shape.width
        enqueue(partial(self._kernels.attention, replace(shape, stride=columns), replace(call, result=wide)))
        matrix = Matrix(address=wide, rows=rows, columns=columns, stride=columns)
        enqueue_rounding(self._to, self._device, matrix, result, stride=shape.stride, scale=self._scale)


class _Shared:
    """Describes attention on this rank: `shape` is that of its heads and of all tokens, `operands` are q, k and v."""

    def __init__(self, exchange: Exchange, shape: AttentionShape, tensors: Tensors) -> None:
        self.exchange, group = exchange, exchange.group
        if shape.heads % group.size:
            raise tensors.refusal(f"{shape.heads} heads are not divided evenly by {group.size} ranks")
        heads = shape.heads // group.size
        values = heads * shape.width
        queries, keys = divided_tokens(group.shares, group.rank, shape.queries, shape.keys)
        self.shape = replace(shape, queries=sum(queries), keys=sum(keys), heads=heads, stride=values)
        self._queries, self._values = queries, values
        item = 1 if shape.fp8 else BF16_BYTES
        first, other = (self._layout(tokens, item) for tokens in (queries, keys))
        self.operands = first, other, other
        if first.columns % UNIT or values % UNIT:
            raise tensors.refusal(f"{heads} heads of width {shape.width} take no multiple of {UNIT} bytes")

    def result(self, item: int) -> Divided:
        """Return what attention's result is, of values of so many bytes."""
        return self._layout(self._queries, item)

    def _layout(self, tokens: tuple[int, ...], item: int) -> Divided:
        return Divided(pictures=self.shape.pictures, tokens=tokens, columns=self._values * item)

"""Computes the low-rank branches of linear layers: two narrow products, whose result the layer's own product adds.

cuBLASLt adds it before bias and GELU, so that these stay in the product's epilogue. Where the layer's result is
bfloat16, the branch is written to its place; where it is FP8, to memory of its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from .enqueuing import Enqueuing
from .kernels import Kernels
from .products import LinearCall, Matrix
from .sizes import BF16_BYTES, aligned, whole_packs
from .widening import enqueue_widening


class BranchProducts:
    """Computes the branches of one operator's layers.

    Args:
        kernels: What they are computed with.
        enqueuing: What remembers the operator's launches.
    """

    def __init__(self, kernels: Kernels, enqueuing: Enqueuing) -> None:
        self._kernels, self._enqueuing, self._device = kernels, enqueuing, kernels.device
        self._widened: tuple[Matrix, Matrix] | None = None

    def added(self, call: LinearCall, down: Matrix, up: Matrix, scale: float) -> LinearCall:
        """Enqueue a layer's branch, and return the layer's product with what the branch adds.

        Args:
            call: The product.
            down: (inputs, rank) bfloat16.
            up: (rank, outputs) bfloat16.
            scale: What an FP8 input is multiplied by.
        """
        stride = whole_packs(down.columns)
        narrow_bytes = aligned(BF16_BYTES * call.x.rows * stride)
        wide_bytes = BF16_BYTES * call.y.rows * call.y.columns if call.y.fp8 else 0
        scratch = self._device.scratch(narrow_bytes + wide_bytes, "branches")
        narrow = Matrix(address=scratch, rows=call.x.rows, columns=down.columns, stride=stride)
        addend = call.y
        if call.y.fp8:
            columns = call.y.columns
            addend = Matrix(address=scratch + narrow_bytes, rows=call.y.rows, columns=columns, stride=columns)
        made, products, enqueue = replace(call, addend=addend), self._kernels.products, self._enqueuing.enqueue
        enqueue(partial(products.prepare, made))
        x = self._wide(call.x, scale) if call.x.fp8 else call.x
        enqueue(partial(products, LinearCall(x=x, weight=down, bias=0, y=narrow, turned=True)))
        enqueue(partial(products, LinearCall(x=narrow, weight=up, bias=0, y=addend, turned=True)))
        return made

    def _wide(self, x: Matrix, scale: float) -> Matrix:
        """Return FP8 values in bfloat16: those of the layer before, if they are the same."""
        if self._widened is not None and self._widened[0] == x:
            return self._widened[1]
        address = self._device.scratch(BF16_BYTES * x.rows * x.columns, "widened")
        result = Matrix(address=address, rows=x.rows, columns=x.columns, stride=x.columns)
        enqueue_widening(self._enqueuing, self._device, x, address, scale=scale)
        self._widened = (x, result)
        return result

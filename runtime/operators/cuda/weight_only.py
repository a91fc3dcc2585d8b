"""Computes linear layers whose weights alone are FP8: widened piece by piece, and multiplied at once.

A piece stays in the GPU's cache until its product has read it, and no more than one is in memory.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from .enqueuing import Enqueuing
from .kernels import Kernels
from .products import LinearCall, Matrix
from .sizes import BF16_BYTES, FLOAT32_BYTES
from .tensors import Tensors
from .widening import enqueue_widening

PIECE_BYTES = 32 << 20
"""The most bytes that a piece of a weight takes once it is widened."""
_ROWS = 16
"""The rows that pieces are a multiple of."""


class WeightOnly(Enqueuing):
    """Computes y = x (scales * W)^T, by one scale or by one for each row.

    Args:
        kernels: What it is computed with.
        tensors: Its tensors in this call.
    """

    def __init__(self, kernels: Kernels, tensors: Tensors) -> None:
        super().__init__(kernels.device)
        self._kernels, self._t = kernels, tensors

    def run(self) -> None:
        """Compute the operator."""
        t, shape = self._t, self._t.tokens("x")
        outputs, inputs, tokens = t.outputs_of("weight"), shape[2], shape[0] * shape[1]
        address, (scales, step) = t.address("weight", (outputs, inputs)), t.row_scales("weight_scale", outputs)
        weight = Matrix(address=address, rows=outputs, columns=inputs, stride=inputs, fp8=True)
        y = Matrix(address=t.output("y", (*shape[:2], outputs)), rows=tokens, columns=outputs, stride=outputs)
        rows = max(_ROWS, PIECE_BYTES // (BF16_BYTES * inputs) // _ROWS * _ROWS)
        place = self._device.scratch(BF16_BYTES * min(rows, outputs) * inputs, "pieces")
        for first in range(0, outputs, rows):
            count = min(rows, outputs - first)
            piece = replace(weight, address=weight.address + first * inputs, rows=count)
            scale = scales + FLOAT32_BYTES * first * step
            enqueue_widening(self, self._device, piece, place, scales=scale, scale_step=step)
            call = LinearCall(
                x=t.matrix("x", shape),
                weight=replace(piece, address=place, fp8=False),
                bias=0,
                y=replace(y, address=y.address + BF16_BYTES * first, columns=count),
            )
            self._enqueue(partial(self._kernels.products, call))

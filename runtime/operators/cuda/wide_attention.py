"""Computes attention of heads that are too wide for cuDNN: by products and softmax, some queries at a time."""

from __future__ import annotations

import ctypes

from ...device.launch import POINTER
from .attention import Attention, AttentionCall, AttentionShape
from .cudnn import Cudnn
from .device import KernelDevice
from .products import LinearCall, Matrix, Products
from .sizes import BF16_BYTES, FLOAT32_BYTES, whole_packs

WIDEST = 128
"""The width of the widest heads that cuDNN has kernels for on every GPU."""
SCORES_BYTES = 128 << 20
"""The bytes that scores and probabilities may take at a time."""
_ROWS = 128
"""The number that the queries of a time are a multiple of, as products like them."""


class AnyAttention:
    """Computes attention of heads of any width."""

    def __init__(self, device: KernelDevice, cudnn: Cudnn, products: Products) -> None:
        self._device, self._products = device, products
        self._narrow = Attention(device, cudnn)

    def __call__(self, shape: AttentionShape, call: AttentionCall) -> None:
        """Enqueue attention."""
        if shape.width <= WIDEST or shape.fp8:
            self._narrow(shape, call)
        else:
            self._wide(shape, call)

    def _wide(self, shape: AttentionShape, call: AttentionCall) -> None:
        """Enqueue attention in bfloat16, with scores in float32."""
        row_bytes = whole_packs(shape.keys) * (FLOAT32_BYTES + BF16_BYTES)
        rows = min(shape.queries, max(_ROWS, SCORES_BYTES // row_bytes // _ROWS * _ROWS))
        scores = self._device.scratch(rows * row_bytes)
        hidden = shape.heads * shape.width
        for picture in range(shape.pictures):
            for head in range(shape.heads):
                column = head * shape.width

                def matrix(address: int, first: int, count: int, stride: int, column: int = column) -> Matrix:
                    start = address + (first * stride + column) * BF16_BYTES
                    return Matrix(address=start, rows=count, columns=shape.width, stride=stride)

                k, v = (matrix(one, picture * shape.keys, shape.keys, hidden) for one in (call.k, call.v))
                for first in range(0, shape.queries, rows):
                    count, at = min(rows, shape.queries - first), picture * shape.queries + first
                    result = matrix(call.result, at, count, shape.stride)
                    self._attend(matrix(call.q, at, count, hidden), k, v, scores, result)

    def _attend(self, q: Matrix, k: Matrix, v: Matrix, scores: int, result: Matrix) -> None:
        keys, stride = k.rows, whole_packs(k.rows)
        wide = Matrix(address=scores, rows=q.rows, columns=keys, stride=stride, float32=True)
        after = scores + q.rows * stride * FLOAT32_BYTES
        probabilities = Matrix(address=after, rows=q.rows, columns=keys, stride=stride)
        self._products(LinearCall(x=q, weight=k, bias=0, y=wide))
        sizes = ((keys, ctypes.c_int), (stride, ctypes.c_int))
        self._device.launch(
            self._device.function("softmax"),
            q.rows,
            256,
            ((wide.address, POINTER), (probabilities.address, POINTER), *sizes),
        )
        self._products(LinearCall(x=probabilities, weight=v, bias=0, y=result, turned=True))

    def forget(self) -> None:
        """Free what is kept of each shape; the device must have finished with it."""
        self._narrow.forget()

    def close(self) -> None:
        """Free what attention holds."""
        self._narrow.close()

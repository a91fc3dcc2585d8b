"""A device, products and attention in one, computed on integers on a simulated stream; and ranks in threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from queue import Queue
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from simulated_cuda import SimulatedCuda, Stream

from kontext_trt.runtime.flow.group import Piece
from kontext_trt.runtime.flow.shares import Shares
from kontext_trt.runtime.operators.cuda.attention import AttentionCall, AttentionShape
from kontext_trt.runtime.operators.cuda.device import KernelDevice
from kontext_trt.runtime.operators.cuda.exchange import Exchange
from kontext_trt.runtime.operators.cuda.kernels import Kernels
from kontext_trt.runtime.operators.cuda.products import LinearCall
from kontext_trt.runtime.operators.kernels import Input

GELU = 7
"""What products write."""


def view(address: int, shape: Sequence[int], strides: Sequence[int], kind: Any) -> NDArray[Any]:
    """Memory as an array; strides count values."""
    item = np.dtype(kind).itemsize
    size = 1 + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * (size * item)).from_address(address)).view(kind)
    return np.lib.stride_tricks.as_strided(memory, shape, [item * stride for stride in strides])


def mixed(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any]) -> NDArray[np.int64]:
    """What stands for attention of (tokens, width), and does not depend on the order of keys."""
    return (q.astype(np.int64) @ k.astype(np.int64).T) @ v.astype(np.int64)


class HostDevice(KernelDevice):
    """A device, products and attention in one, which compute on a simulated stream."""

    def __init__(self) -> None:
        self.cuda = self.simulated = SimulatedCuda()
        self.stream = self.cuda.stream()
        self.stream_address = self.cuda.stream_address(self.stream)
        self._scratch, self._kept, self._constants, self._lanes, self._block = {}, {}, {}, {}, 0
        self.ran: list[tuple[str, bool]] = []
        """What ran, and whether it was on the executor's stream."""

    @property
    def recording(self) -> bool:
        return self.simulated.recording

    def function(self, name: str, **numbers: int) -> Any:
        return name, numbers

    def constant(self, value: float) -> int:
        return 16

    def launch(
        self, function: Any, grid: int, block: int, arguments: Sequence[tuple[Any, Any]], stream: Stream | None = None
    ) -> None:
        (name, numbers), values = function, [value for value, _ in arguments]
        self.then(name, partial(getattr(self, name, self._nothing), grid * block, values, **numbers), stream)

    def then(self, name: str, work: Callable[[], None], stream: Stream | None = None) -> None:
        on = self.stream if stream is None else stream

        def run() -> None:
            self.ran.append((name, on is self.stream))
            work()

        self.simulated.enqueue(run, on)

    def _nothing(self, threads: int, values: list[Any], **numbers: int) -> None:
        """Stand for a kernel whose result nobody looks at."""

    def exchange(self, threads: int, values: list[Any], *, PACKING: int) -> None:  # noqa: N803
        first_tokens, other_tokens, first_all, other_all, pictures, own_rank, ranks, columns, stride = values[9:]
        for pack in range(threads):
            row, column = divmod(pack, ranks * columns)
            if row >= pictures * (first_tokens + 2 * other_tokens):
                continue
            tensor, tokens, all_tokens = 0, first_tokens, first_all
            if row >= pictures * tokens:
                other, row = divmod(row - pictures * tokens, pictures * other_tokens)
                tensor, tokens, all_tokens = 1 + other, other_tokens, other_all
            whole = values[tensor] + 16 * (row * stride + column)
            rank, column = divmod(column, columns)
            piece = values[3 + tensor] + 16 * ((rank * pictures * tokens + row) * columns + column)
            if rank == own_rank:
                picture, row = divmod(row, tokens)
                piece = values[6 + tensor] + 16 * ((picture * all_tokens + row) * columns + column)
            self.simulated.check(whole, 16)
            self.simulated.check(piece, 16)
            ctypes.memmove(*((piece, whole) if PACKING else (whole, piece)), 16)

    def quantize(self, threads: int, values: list[Any]) -> None:
        x, result, packs, packs_per_row, stride, result_stride, _ = values
        shape = packs // packs_per_row, 8 * packs_per_row
        view(result, shape, (result_stride, 1), np.uint8)[:] = view(x, shape, (stride, 1), np.uint16) & 0xFF

    def prepare(self, call: LinearCall) -> None:
        pass

    def __call__(self, first: LinearCall | AttentionShape, other: Any = None) -> None:
        if isinstance(first, LinearCall):
            self.then("product", partial(self._multiply, first.y), other)
        else:
            self.then("attention", partial(self._attend, first, other))

    def _multiply(self, y: Any) -> None:
        view(y.address, (y.rows, y.columns), (y.stride, 1), np.uint8 if y.fp8 else np.uint16)[:] = GELU

    def _attend(self, shape: AttentionShape, call: AttentionCall) -> None:
        kind = np.uint8 if shape.fp8 else np.uint16

        def heads(address: int, tokens: int, stride: int) -> NDArray[Any]:
            extents = shape.pictures, shape.heads, tokens, shape.width
            return view(address, extents, (tokens * stride, shape.width, stride, 1), kind)

        hidden = shape.heads * shape.width
        q, k, v = (
            heads(address, tokens, hidden)
            for address, tokens in ((call.q, shape.queries), (call.k, shape.keys), (call.v, shape.keys))
        )
        result = heads(call.result, shape.queries, shape.stride)
        for picture in range(shape.pictures):
            for head in range(shape.heads):
                result[picture, head] = mixed(*(one[picture, head] for one in (q, k, v))).astype(kind)

    def kernels(self, group: Threads | None) -> Kernels:
        kernels = Kernels.__new__(Kernels)  # without libraries
        kernels.device = self
        kernels.products = kernels.attention = kernels.convolutions = cast(Any, self)
        kernels.exchange = None if group is None else Exchange(self, group)
        kernels.lanes = {} if group is None else {name: self.lane(name) for name in "qk"}
        return kernels


class Threads:
    """A group of threads, whose devices are simulated."""

    def __init__(self, rank: int, shares: Shares | None, queues: dict[tuple[int, int], Queue[bytes]]) -> None:
        self.rank, self.size, self.shares = rank, max(max(pair) for pair in queues) + 1, shares
        self._queues = queues
        self.device: HostDevice | None = None

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        device = cast(HostDevice, self.device)
        assert all(piece.rank != self.rank for piece in (*sends, *receives)), "a rank's own pieces are copied already"

        def work() -> None:
            for piece in sends:
                if piece.size_bytes:
                    device.simulated.check(piece.address, piece.size_bytes)
                    self._queues[self.rank, piece.rank].put(ctypes.string_at(piece.address, piece.size_bytes))
            for piece in receives:
                if piece.size_bytes:
                    device.simulated.check(piece.address, piece.size_bytes)
                    data = self._queues[piece.rank, self.rank].get(timeout=20)
                    assert len(data) == piece.size_bytes
                    ctypes.memmove(piece.address, data, len(data))

        device.then("swap", work, device.simulated.stream_at(stream) if stream else None)

    def average(self, address: int, count: int, stream: int = 0) -> None:
        device = cast(HostDevice, self.device)
        device.then("average", lambda: None, device.simulated.stream_at(stream))

    def close(self) -> None:
        """Do nothing."""


def queues(ranks: int) -> dict[tuple[int, int], Queue[bytes]]:
    return {(one, other): Queue() for one in range(ranks) for other in range(ranks)}


class Tensors:
    """A call whose tensors lie on a simulated device."""

    def __init__(self, device: HostDevice, arrays: dict[str, NDArray[Any]]) -> None:
        self._device = device
        self.stream = device.stream_address
        self.outputs: dict[int, tuple[int, tuple[int, ...]]] = {}
        self.inputs = tuple(Input(device.cuda.malloc(max(one.nbytes, 1)), one.shape) for one in arrays.values())
        self.write(arrays)

    def write(self, arrays: dict[str, NDArray[Any]]) -> None:
        for one, array in zip(self.inputs, arrays.values(), strict=True):
            ctypes.memmove(one.address, array.tobytes(), array.nbytes)

    def output(self, index: int, shape: tuple[int, ...]) -> int:
        if index not in self.outputs:
            self.outputs[index] = self._device.cuda.malloc(2 * int(np.prod(shape))), shape
        return self.outputs[index][0]

    def result(self, kind: Any) -> NDArray[Any]:
        address, shape = self.outputs[0]
        return view(address, shape, (shape[1] * shape[2], shape[2], 1), kind).copy()

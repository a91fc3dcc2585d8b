"""Ranks in threads, each with a simulated device, attend to each other's tokens; kernels are computed on integers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from queue import Queue
from typing import Any, cast

import numpy as np
import pytest
from fused_models import Sizes, attributes, shapes
from numpy.typing import NDArray
from simulated_cuda import SimulatedCuda, Stream

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.runtime.device.graphs import RecordedGraph
from kontext_trt.runtime.flow.group import Piece
from kontext_trt.runtime.flow.shares import Shares, divide
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cuda.attention import AttentionCall, AttentionShape
from kontext_trt.runtime.operators.cuda.device import KernelDevice
from kontext_trt.runtime.operators.cuda.exchange import Divided, Exchange, divided_tokens
from kontext_trt.runtime.operators.cuda.kernels import Kernels
from kontext_trt.runtime.operators.cuda.products import LinearCall
from kontext_trt.runtime.operators.definition import Kind
from kontext_trt.runtime.operators.fused import FusedKernel
from kontext_trt.runtime.operators.kernels import Call, Input

HEADS, WIDTH, WIDE, PICTURES = 6, 16, 32, 2
HIDDEN = HEADS * WIDTH
GELU = 7
"""What products write in these tests."""


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


def inputs(name: str, counts: dict[str, int], seed: int) -> dict[str, NDArray[Any]]:
    """Random inputs of attention, the other inputs without values."""
    definition, rng = DEFINITIONS[name], np.random.default_rng(seed)
    given = shapes(definition, Sizes(pictures=PICTURES, heads=HEADS, width=WIDTH, wide=WIDE))
    found: dict[str, NDArray[Any]] = {}
    for one, kind in zip(definition.inputs, definition.input_kinds, strict=True):
        shape = (PICTURES, counts[one], HIDDEN) if one in counts else given[one]
        found[one] = rng.integers(0, 256, shape).astype(np.uint8 if kind is Kind.FP8 else np.uint16)
    return found


UNEVEN = {
    1: Shares(text=(5,), target=(9,), reference=(3,)),
    2: Shares(text=(5, 2), target=(9, 4), reference=(0, 8)),
    3: divide(5, 11, 4, 3),
}


@pytest.mark.parametrize("ranks", UNEVEN)
@pytest.mark.parametrize("queries", ["joint", "target"])
@pytest.mark.parametrize(
    "name",
    [
        "Attend",
        "Attend_to_fp8",
        "Attend_fp8_attention_to_fp8",
        "AttendBesideGelu",
        "AttendBesideGelu_to_fp8",
        "AttendBesideGelu_fp8_fp8_attention_to_fp8",
    ],
)
def test_ranks_attend_to_the_tokens_of_all(name: str, queries: str, ranks: int):
    """Eager, and replayed from a graph with other tokens."""
    definition, shares, between = DEFINITIONS[name], UNEVEN[ranks], queues(ranks)
    own = shares.joint if queries == "joint" else shares.target
    sizes = Sizes(pictures=PICTURES, heads=HEADS, width=WIDTH, wide=WIDE)
    kind = np.uint8 if definition.format.result else np.uint16

    def rank_inputs(rank: int, seed: int) -> dict[str, NDArray[Any]]:
        return inputs(name, {"q": own[rank], "x": own[rank]} | dict.fromkeys("kv", shares.joint[rank]), seed + rank)

    def wanted(rank: int, seed: int) -> NDArray[Any]:
        given = [rank_inputs(other, seed) for other in range(ranks)]
        k, v = (np.concatenate([one[which] for one in given], axis=1) for which in "kv")
        heads = [
            (slice(None), slice(None), slice(WIDTH * head, WIDTH * (head + 1))) for head in range(HEADS)
        ]  # fmt: skip
        return np.concatenate(
            [
                np.stack([mixed(given[rank]["q"][at][b], k[at][b], v[at][b]) for b in range(PICTURES)])
                for at in heads
            ],
            axis=2,
        ).astype(kind)  # fmt: skip

    def compute(rank: int) -> None:
        device, group = HostDevice(), Threads(rank, shares, between)
        group.device = device
        kernels = device.kernels(group)
        kernel = FusedKernel(kernels, definition, attributes(definition, sizes))
        call = Tensors(device, rank_inputs(rank, 10))

        def check(seed: int) -> None:
            device.cuda.synchronize(device.stream)
            result = call.result(kind)
            assert np.array_equal(result[..., :HIDDEN], wanted(rank, seed))
            assert (result[..., HIDDEN:] == GELU).all()

        for _ in range(2):
            kernel(cast(Call, call))
            check(10)
        graph = RecordedGraph.record(device.cuda, device.stream, lambda _: kernel(cast(Call, call)), 0)
        call.write(rank_inputs(rank, 20))
        for _ in range(2):
            graph.launch(device.stream)
            check(20)
        if definition.operator.name == "AttendBesideGelu":
            order = [what for what in device.ran if what[0] in ("swap", "product", "attention")]
            assert order[:4] in (
                [("product", True), ("swap", False), ("attention", True), ("swap", True)],
                [("swap", False), ("product", True), ("attention", True), ("swap", True)],
            ), "the first exchange runs on a stream beside the product"
        graph.close()
        device.close()
        assert device.simulated.open_handles == 1, "but for the executor's stream"

    with ThreadPoolExecutor(ranks) as pool:
        for done in [pool.submit(compute, rank) for rank in range(ranks)]:
            done.result()


def test_pieces_of_two_ranks_fit():
    """What one sends another is what that one receives, piece by piece; all of a buffer is sent, and filled, once."""
    tokens, columns = (3, 0, 5, 1), 32
    layout = Divided(pictures=2, tokens=tokens, columns=columns)
    for rank in range(4):
        sizes = [piece.size_bytes for piece in layout.by_heads(rank, 0)]
        assert sizes == [tokens[rank] * columns] * 8
        ours = [piece.address for piece in layout.by_tokens(4096) if piece.rank == rank]
        assert ours == [layout.own_address(rank, 4096) + picture * 9 * columns for picture in range(2)]
        for other in range(4):
            there = [piece.size_bytes for piece in layout.by_heads(rank, 0) if piece.rank == other]
            assert there == [piece.size_bytes for piece in layout.by_tokens(0) if piece.rank == rank]
        for pieces, whole in (
            (layout.by_heads(rank, 4096), layout.own_bytes(rank)),
            (layout.by_tokens(4096), layout.whole_bytes),
        ):
            covered = sorted((piece.address, piece.address + piece.size_bytes) for piece in pieces if piece.size_bytes)
            assert sum(end - start for start, end in covered) == whole
            assert all(one[1] == other[0] for one, other in pairwise(covered))
            assert not covered or covered[0][0] == 4096


SHARES = Shares(text=(2, 1), target=(4, 5), reference=(3, 3))


def test_queries_are_of_all_tokens_or_of_the_target():
    assert divided_tokens(SHARES, 1, 9, 9) == ((9, 9), (9, 9))
    assert divided_tokens(SHARES, 1, 5, 9) == ((4, 5), (9, 9))
    alone = Shares(text=(0, 0), target=(4, 5), reference=(0, 0))
    assert divided_tokens(alone, 0, 4, 4) == ((4, 5), (4, 5))


@pytest.mark.parametrize(
    ("shares", "queries", "keys", "text"),
    [
        (None, 9, 9, "have not been told which tokens each holds"),
        (SHARES, 4, 9, "rank 1 has 4 queries and 9 keys of a picture; of its 9 tokens, 5 are of the target"),
        (SHARES, 9, 8, "queries are all of them or those, keys all"),
        (Shares(text=(1, 0), target=(4, 5), reference=(0, 0)), 5, 5, "cannot tell the last block from the others"),
        (Shares(text=(0, 1), target=(4, 5), reference=(0, 0)), 6, 6, "take fewer ranks"),
    ],
)
def test_tokens_that_were_not_shared_out_are_refused(shares: Shares | None, queries: int, keys: int, text: str):
    with pytest.raises(ExecutorError, match=text):
        divided_tokens(shares, 1, queries, keys)


def run(name: str, change: Mapping[str, tuple[int, ...]], shares: Shares, rank: int = 0, **other: int) -> HostDevice:
    """Run an operator on one rank, up to where its first swap would wait."""
    definition, device = DEFINITIONS[name], HostDevice()
    sizes = Sizes(pictures=PICTURES, heads=HEADS, width=WIDTH, wide=WIDE)
    group = Threads(rank, shares, queues(shares.size))
    group.device = device
    given = {key: np.zeros(shape, np.uint16) for key, shape in {**shapes(definition, sizes), **change}.items()}
    made = FusedKernel(device.kernels(group), definition, attributes(definition, sizes) | other)
    made(cast(Call, Tensors(device, given)))
    return device


def test_heads_that_ranks_do_not_divide_are_refused():
    shapes = dict.fromkeys("qkv", (2, 5, HIDDEN))
    four = Shares(text=(1,) * 4, target=(2,) * 4, reference=(2,) * 4)
    with pytest.raises(ExecutorError, match="6 heads are not divided evenly by 4 ranks; its inputs are q"):
        run("Attend", shapes, four)
    narrow = dict.fromkeys("qkv", (2, 5, 48))
    six = Shares(text=(1,) * 6, target=(2,) * 6, reference=(2,) * 6)
    with pytest.raises(ExecutorError, match="1 heads of width 8 take no multiple of 16 bytes"):
        run("Attend_fp8_attention_to_fp8", narrow, six)


def test_the_mean_of_fp8_keys_is_that_of_all_ranks():
    """It is averaged before keys lose it, on a stream beside those of queries and values."""
    tokens = {"text": (PICTURES, 2, HIDDEN), "image": (PICTURES, 7, HIDDEN)}
    device = run("JointHeads_to_fp8", tokens | dict.fromkeys(("cos", "sin"), (9, WIDTH // 2)), SHARES)
    device.cuda.synchronize(device.stream)
    keys = [("product", False)] * 2 * PICTURES + [("key_means", False), ("average", False), ("heads", False)]
    queries = [("product", False)] * 2 * PICTURES + [("heads", False)]
    values = [("product", True)] * 2 * PICTURES + [("quantize", True)]
    assert sorted(device.ran) == sorted(keys + queries + values)
    order = [name for name, _ in device.ran]
    assert order.index("key_means") < order.index("average") < len(order) - 1 - order[::-1].index("heads")


@pytest.mark.parametrize("name", ["JointHeads", "JointHeads_fp8", "JointHeads_branched_to_fp8"])
def test_what_averages_nothing_or_shares_memory_runs_one_after_another(name: str):
    tokens = {"text": (PICTURES, 2, HIDDEN), "image": (PICTURES, 7, HIDDEN)}
    device = run(name, tokens | dict.fromkeys(("cos", "sin"), (9, WIDTH // 2)), SHARES)
    device.cuda.synchronize(device.stream)
    assert {what for what, _ in device.ran} >= {"product", "heads"}
    assert all(own for _, own in device.ran)


def test_other_shares_of_the_same_tensors_are_new():
    """A rank may hold as many tokens as before while others do not."""
    given = {key: np.zeros((PICTURES, 9, HIDDEN), np.uint16) for key in "qkv"}
    device, group = HostDevice(), Threads(0, SHARES, queues(2))
    group.device = device
    definition = DEFINITIONS["Attend"]
    kernel = FusedKernel(device.kernels(group), definition, {"num_heads": HEADS})
    call, asked = cast(Call, Tensors(device, given)), list[int]()
    swap = group.swap
    group.swap = lambda sends, receives, stream=0: asked.append(sum(one.size_bytes for one in receives))  # pyright: ignore
    kernel(call)
    group.shares = Shares(text=(2, 1), target=(4, 7), reference=(3, 5))
    kernel(call)
    assert asked[0] < asked[2]
    group.swap = swap

"""Ranks in threads, each with a simulated device, attend to each other's tokens; kernels are computed on integers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from computing_device import GELU, HostDevice, Tensors, Threads, mixed, queues
from fused_models import Sizes, attributes, shapes
from numpy.typing import NDArray

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.runtime.device.graphs import RecordedGraph
from kontext_trt.runtime.flow.shares import Shares, divide
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cuda.exchange import Divided, divided_tokens
from kontext_trt.runtime.operators.definition import Kind
from kontext_trt.runtime.operators.fused import FusedKernel
from kontext_trt.runtime.operators.kernels import Call

HEADS, WIDTH, WIDE, PICTURES = 6, 16, 32, 2
HIDDEN = HEADS * WIDTH


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

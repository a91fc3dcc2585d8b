"""Convolutions and wide attention: what cuDNN and cuBLASLt are told, with libraries that only note it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.engine.sizes import TRAINED_SIZES
from kontext_trt.runtime.operators.cuda import timing, wide_attention
from kontext_trt.runtime.operators.cuda.attention import AttentionCall, AttentionShape
from kontext_trt.runtime.operators.cuda.convolutions import (
    WORKSPACE_BYTES,
    ConvolutionCall,
    Convolutions,
    ConvolutionShape,
)
from kontext_trt.runtime.operators.cuda.products import LinearCall
from kontext_trt.runtime.operators.cuda.sizes import PACK
from kontext_trt.runtime.operators.cuda.wide_attention import SCORES_BYTES, AnyAttention

SCRATCH = 1 << 30
EXTENTS = {"pictures": 1, "height": 4, "width": 6, "channels": 16, "filters": 8}
SHAPE: dict[str, Any] = {**EXTENTS, "halves": False, "residual": False}
CALL = ConvolutionCall(x=1, filters=2, bias=3, y=4, residual=5)


class Tensor:
    def __init__(self, name: str, **given: Any) -> None:
        self.name, self.given = name, given

    def __getattr__(self, name: str) -> Any:
        def note(value: Any) -> Tensor:
            self.given[name] = value
            return self

        return note


class Graph:
    """Has the plans of `sizes`: their workspaces, None for one that cannot be built."""

    def __init__(self, sizes: list[int | None]) -> None:
        self.sizes, self.convolution, self.executed = sizes, {}, []

    def tensor(self, *, name: str, **given: Any) -> Tensor:
        return Tensor(name, **given)

    def conv_fprop(self, x: Tensor, filters: Tensor, **given: Any) -> Tensor:
        self.convolution = given
        return Tensor("y")

    def add(self, one: Tensor, other: Tensor) -> Tensor:
        return Tensor(f"{one.name} + {other.name}")

    def validate(self) -> None: ...
    def build_operation_graph(self) -> None: ...
    def create_execution_plans(self, modes: list[str]) -> None: ...

    def get_execution_plan_count(self) -> int:
        return len(self.sizes)

    def build_plan_at_index(self, index: int) -> None:
        if self.sizes[index] is None:
            raise RuntimeError("not supported")

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return self.sizes[index] or 0

    def execute_plan_at_index(self, addresses: dict[Tensor, int], workspace: int, index: int, handle: int) -> None:
        self.executed.append((index, workspace, {tensor.name: address for tensor, address in addresses.items()}))


class Device:
    cuda, architecture = SimpleNamespace(device=0), "sm_90"
    recording = False

    def __init__(self) -> None:
        self.launched: list[tuple[str, list[Any]]] = []
        self.asked: list[int] = []

    def function(self, name: str) -> str:
        return name

    def launch(self, function: str, grid: int, block: int, arguments: Any) -> None:
        self.launched.append((function, [value for value, _ in arguments]))

    def scratch(self, size_bytes: int) -> int:
        self.asked.append(size_bytes)
        return SCRATCH


@pytest.fixture
def device() -> Any:
    return Device()


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times that plans are measured with, in their order."""
    found = [3.0, 1.0, 2.0]
    remaining = iter(found)
    monkeypatch.setattr(timing, "milliseconds", lambda device, run: next(remaining))
    return found


def made(device: Any, *sizes: int | None) -> tuple[Convolutions, Graph]:
    graph = Graph(list(sizes))
    library = SimpleNamespace(data_type=SimpleNamespace(BFLOAT16="bf16"), heur_mode=SimpleNamespace(A="A"))
    library.__version__, library.backend_version = "1.0", lambda: 9
    cudnn: Any = SimpleNamespace(library=library, handle=7, graph=lambda kind: graph)
    return Convolutions(device, cudnn), graph


def test_the_fastest_of_three_plans_that_fit_runs(device: Any, times: list[float]):
    convolutions, graph = made(device, None, 100, WORKSPACE_BYTES + 1, 300, 0, 0)
    for _ in range(2):
        convolutions(ConvolutionShape(**SHAPE), CALL)
    addresses = {"x": 1, "filters": 2, "bias": 3, "y + bias": 4}
    assert graph.executed == [(3, SCRATCH, addresses)] * 2
    assert device.asked == [512, 512]
    assert device.launched == []


def test_a_plan_that_fails_when_it_is_measured_is_left_out(device: Any, monkeypatch: pytest.MonkeyPatch):
    def fail_first(run: Any) -> float:
        if run.args == (0,):
            raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
        return 1.0

    monkeypatch.setattr(timing, "milliseconds", lambda device, run: fail_first(run))
    convolutions, graph = made(device, 0, 0)
    convolutions(ConvolutionShape(**SHAPE), CALL)
    assert [index for index, _, _ in graph.executed] == [1]
    monkeypatch.setattr(timing, "milliseconds", lambda device, run: fail_first(SimpleNamespace(args=(0,))))
    with pytest.raises(ExecutorError, match=r"runs none of the plans that it has for .*CUDNN_STATUS_EXECUTION_FAILED"):
        made(device, 0, 0)[0](ConvolutionShape(**SHAPE), CALL)


@pytest.mark.parametrize(("halves", "pads", "step"), [(False, [1, 1], 1), (True, [0, 0], 2)])
def test_zeros_are_all_around_or_after_the_picture(device: Any, halves: bool, pads: list[int], step: int):
    convolutions, graph = made(device, 0)
    convolutions(ConvolutionShape(**SHAPE | {"halves": halves, "residual": True}), CALL)
    assert graph.convolution == {
        "pre_padding": pads, "post_padding": [1, 1], "stride": [step] * 2, "dilation": [1, 1]
    }  # fmt: skip
    ((_, _, addresses),) = graph.executed
    assert addresses == {"x": 1, "filters": 2, "bias": 3, "residual": 5, "y + bias + residual": 4}


def test_few_channels_are_copied_to_eight_and_back(device: Any):
    convolutions, graph = made(device, 1000)
    convolutions(ConvolutionShape(**SHAPE | {"channels": 3, "filters": 3}), CALL)
    x, y = SCRATCH + 1024, SCRATCH + 1024 + 512
    assert device.asked == [1024 + 2 * 512]
    assert device.launched == [("channels", [1, x, 24 * 8, 3, 8]), ("channels", [y, 4, 24 * 3, 8, 3])]
    assert graph.executed == [(0, SCRATCH, {"x": x, "filters": 2, "bias": 3, "y + bias": y})]


def test_without_a_plan_the_reason_is_said(device: Any):
    convolutions, _ = made(device, None)
    with pytest.raises(ExecutorError, match=r"cuDNN has no convolution for .*channels=16.*: not supported"):
        convolutions(ConvolutionShape(**SHAPE), CALL)
    convolutions, _ = made(device, WORKSPACE_BYTES + 1)
    with pytest.raises(ExecutorError, match="too little memory"):
        convolutions(ConvolutionShape(**SHAPE), CALL)


def test_plans_are_not_built_while_a_graph_is_recorded(device: Any):
    device.recording = True
    with pytest.raises(ExecutorError, match="for the first time while a graph is recorded"):
        made(device, 0)[0](ConvolutionShape(**SHAPE), CALL)


def attention(device: Any, monkeypatch: pytest.MonkeyPatch, **changed: int) -> tuple[list[LinearCall], list[Any]]:
    """What attention of this shape has of products, and of cuDNN."""
    calls: list[LinearCall] = []
    narrow: list[Any] = []
    monkeypatch.setattr(wide_attention, "Attention", lambda *_: lambda *given: narrow.append(given))
    given = {"pictures": 1, "queries": 16384, "keys": 16384, "heads": 1, "width": 512, "stride": 512} | changed
    anything: Any = None
    products: Any = calls.append
    shape = AttentionShape(**given, fp8=False)
    AnyAttention(device, anything, products)(shape, AttentionCall(q=1 << 40, k=2 << 40, v=3 << 40, result=4 << 40))
    return calls, narrow


def test_wide_heads_are_attended_in_parts_that_fit(device: Any, monkeypatch: pytest.MonkeyPatch):
    calls, narrow = attention(device, monkeypatch)
    assert narrow == []
    assert device.asked[0] <= SCORES_BYTES
    scores, mixes = calls[::2], calls[1::2]
    assert sum(call.x.rows for call in scores) == sum(call.y.rows for call in mixes) == 16384
    assert {call.x.rows for call in scores[:-1]} == {1280}
    assert [call.x.address for call in scores] == [(1 << 40) + at * 1280 * 512 * 2 for at in range(len(scores))]
    assert [call.y.address for call in mixes] == [(4 << 40) + at * 1280 * 512 * 2 for at in range(len(scores))]
    for score, mix, (name, arguments) in zip(scores, mixes, device.launched, strict=True):
        assert score.y.float32
        assert (score.weight.rows, score.weight.columns, score.turned) == (16384, 512, False)
        assert (mix.weight.rows, mix.weight.columns, mix.turned) == (16384, 512, True)
        assert (name, arguments) == ("softmax", [score.y.address, mix.x.address, 16384, 16384])
        assert mix.x.address + mix.x.rows * 16384 * 2 <= SCRATCH + SCORES_BYTES


def test_wide_heads_lie_side_by_side(device: Any, monkeypatch: pytest.MonkeyPatch):
    calls, _ = attention(device, monkeypatch, pictures=2, queries=8, keys=16, heads=3, width=256, stride=1000)
    assert len(calls) == 2 * 2 * 3
    last_scores, last_mix = calls[-2:]
    assert last_scores.x.address == (1 << 40) + (8 * 768 + 2 * 256) * 2
    assert last_scores.weight.address == (2 << 40) + (16 * 768 + 2 * 256) * 2
    assert last_mix.y.address == (4 << 40) + (8 * 1000 + 2 * 256) * 2
    assert (last_scores.x.stride, last_mix.y.stride) == (768, 1000)


def test_other_heads_are_attended_by_cudnn(device: Any, monkeypatch: pytest.MonkeyPatch):
    calls, narrow = attention(device, monkeypatch, width=128, heads=4)
    assert calls == []
    assert len(narrow) == 1


@pytest.mark.parametrize(("keys", "stride"), [(15, 16), (16, 16), (17, 24)])
def test_rows_of_scores_begin_with_a_pack_however_many_keys_there_are(
    device: Any, monkeypatch: pytest.MonkeyPatch, keys: int, stride: int
):
    (score, mix), _ = attention(device, monkeypatch, queries=8, keys=keys)
    assert (score.y.columns, score.y.stride, mix.x.columns, mix.x.stride) == (keys, stride, keys, stride)
    assert mix.weight.rows == keys
    assert device.launched == [("softmax", [score.y.address, mix.x.address, keys, stride])]
    assert device.asked == [8 * stride * 6]


def test_the_autoencoder_attends_at_every_trained_size(device: Any, monkeypatch: pytest.MonkeyPatch):
    """A third of them have tokens that are no multiple of 8."""
    counts = [width // 8 * (height // 8) for width, height in TRAINED_SIZES]
    assert sum(count % 8 != 0 for count in counts) == 6
    for count in counts:
        calls, _ = attention(device, monkeypatch, queries=count, keys=count)
        assert sum(call.x.rows for call in calls[::2]) == count
        assert {call.x.columns for call in calls[1::2]} == {count}
        assert {call.y.stride % PACK for call in calls[::2]} == {0}
        assert device.asked[-1] <= SCORES_BYTES

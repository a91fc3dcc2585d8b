"""Kernels of pictures: launched for what fits, refused for what does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.runtime.operators.catalogue import DEFINITIONS, OPERATORS, WEIGHT_ONLY
from kontext_trt.runtime.operators.cuda import computing, pictures
from kontext_trt.runtime.operators.cuda.convolutions import ConvolutionCall, ConvolutionShape
from kontext_trt.runtime.operators.cuda.pictures import Pictures
from kontext_trt.runtime.operators.cuda.tensors import Tensors
from kontext_trt.runtime.operators.cuda.weights import PLACES, NodeWeights
from kontext_trt.runtime.operators.kernels import Input
from tests.support.fused_models import Sizes, attributes, shapes

OWN = ("GroupNorm", "GroupNormSilu", "UpsampleNearest")
"""The operators that launch kernels of this project alone."""


def test_every_operator_is_computed_once():
    assert {*computing._COMPUTED, *pictures._COMPUTED, WEIGHT_ONLY} == set(OPERATORS)
    assert not set(computing._COMPUTED) & set(pictures._COMPUTED)


class Device:
    """Notes what is launched."""

    stream = 4096

    def __init__(self) -> None:
        self.recording = False
        self.launched: list[tuple[str, int, int]] = []
        self.kept: list[int] = []

    def function(self, name: str, **numbers: int) -> str:
        return name

    def launch(self, function: str, grid: int, block: int, arguments: Any, stream: int = stream) -> None:
        self.launched.append((function, grid, block))

    def scratch(self, size_bytes: int) -> int:
        return 1 << 30

    def keep(self, size_bytes: int) -> int:
        self.kept.append(size_bytes)
        return (1 << 40) + len(self.kept)

    def give_back(self, address: int) -> None:
        self.kept.pop()


class Run:
    """Computes an operator of pictures with a device that notes what it is told."""

    def __init__(self, name: str, sizes: Sizes, **changed: tuple[int, ...] | int) -> None:
        self.device, self.calls, self.outputs = Device(), [], []
        definition = DEFINITIONS[name]
        given = attributes(definition, sizes)
        found = {key: changed.get(key, shape) for key, shape in shapes(definition, sizes).items()}
        inputs = [Input(address=4096 * at, shape=found[key]) for at, key in enumerate(definition.inputs)]  # pyright: ignore[reportArgumentType]
        given |= {key: value for key, value in changed.items() if isinstance(value, int)}
        call: Any = SimpleNamespace(inputs=inputs, output=self._output)
        note: Callable[..., None] = lambda *arguments: self.calls.append(arguments)  # noqa: E731
        kernels: Any = SimpleNamespace(device=self.device, convolutions=note, products=note)
        device: Any = self.device
        self.weights = NodeWeights(device)
        self.pictures = Pictures(kernels, definition, Tensors(definition, call, given), self.weights)

    def _output(self, index: int, shape: tuple[int, ...]) -> int:
        self.outputs.append(shape)
        return 8192


@pytest.mark.parametrize("channels", [32, 64, 128, 256, 512])
def test_a_norm_is_three_launches_with_a_thread_for_each_pack(channels: int):
    run = Run("GroupNormSilu", Sizes(pictures=2, rows=64, columns=64, channels=channels))
    run.pictures.run()
    names, grids, blocks = zip(*run.device.launched, strict=True)
    assert names == ("group_statistics", "group_means", "group_norm")
    chunks = min(1024, 64 * 64 // (4 * 2048 // channels))
    assert grids == (2 * chunks, 64, 2 * chunks)
    assert blocks == (256, 32, 256)
    assert run.outputs == [(2, 64, 64, channels)]
    assert len(run.pictures.launches) == 3


def test_a_large_picture_is_summed_in_as_many_parts_as_run_at_once():
    run = Run("GroupNorm", Sizes(pictures=1, rows=1024, columns=1024, channels=128))
    run.pictures.run()
    assert [grid for _, grid, _ in run.device.launched] == [1024, 32, 1024]


def test_a_convolution_has_its_weights_made_once():
    run = Run("ConvolutionHalving", Sizes(channels=3, filters=5))
    run.pictures.run()
    run.pictures.run()
    assert [name for name, *_ in run.device.launched] == ["filters", "channels"]
    assert run.device.kept == [(8 * 9 * 8 + 8) * 2]
    shape, call = run.calls[0]
    assert isinstance(shape, ConvolutionShape)
    assert isinstance(call, ConvolutionCall)
    assert run.outputs[0] == shape.result == (2, 3, 5, 5)
    assert call.bias == call.filters + 8 * 9 * 8 * 2
    run.weights.close()
    assert run.device.kept == []


def test_weights_that_are_computed_are_refused():
    run = Run("Convolution", Sizes())
    for place in range(PLACES):
        run.weights.filters(place, 0, 8, 8)
    with pytest.raises(ExecutorError, match="weights are new while a graph is recorded, or no constants"):
        run.weights.filters(PLACES, 0, 8, 8)


def test_weights_are_not_made_while_a_graph_is_recorded():
    run = Run("Convolution", Sizes())
    run.device.recording = True
    with pytest.raises(ExecutorError, match="weights are new while a graph is recorded"):
        run.pictures.run()


@pytest.mark.parametrize("name", ["Convolution", "ConvolutionAdd", "PointConvolution"])
def test_other_convolutions_keep_the_extents_of_the_picture(name: str):
    run = Run(name, Sizes())
    run.pictures.run()
    assert run.outputs == [(2, 6, 10, 40)]
    assert len(run.calls) == 1


def test_upsampling_is_one_launch():
    run = Run("UpsampleNearest", Sizes())
    run.pictures.run()
    assert run.device.launched == [("upsample", 4, 256)]
    assert run.outputs == [(2, 12, 20, 64)]


REFUSED = {
    "rank": ("UpsampleNearest", Sizes(), {"x": (2, 6, 64)}, r"x must be \(b, h, w, c\)"),
    "nothing": ("GroupNorm", Sizes(), {"x": (2, 0, 10, 64)}, r"x must be \(b, h, w, c\)"),
    "packs": ("UpsampleNearest", Sizes(channels=12), {}, "12 channels, no multiple of 8"),
    "no groups": ("GroupNorm", Sizes(), {"num_groups": 0}, "num_groups is 0"),
    "groups": ("GroupNorm", Sizes(), {"num_groups": 5}, "64 channels have no kernel for a norm of 5 groups"),
    "norm's weight": ("GroupNorm", Sizes(), {"weight": (32,)}, r"weight must be \(64,\)"),
    "norm's bias": ("GroupNormSilu", Sizes(), {"bias": (1,)}, r"bias must be \(64,\)"),
    "channels": ("Convolution", Sizes(), {"weight": (40, 32, 3, 3)}, r"weight must be \(n, 64, 3, 3\)"),
    "side": ("Convolution", Sizes(), {"weight": (40, 64, 5, 5)}, r"weight must be \(n, 64, 3, 3\)"),
    "bias": ("Convolution", Sizes(), {"bias": (41,)}, r"bias must be \(40,\)"),
    "residual": ("ConvolutionAdd", Sizes(), {"residual": (2, 6, 9, 40)}, r"residual must be \(2, 6, 10, 40\)"),
    "narrow residual": ("ConvolutionAdd", Sizes(filters=4), {}, "a residual of 4 channels"),
    "odd": ("ConvolutionHalving", Sizes(rows=7), {}, "must be even"),
    "points": ("PointConvolution", Sizes(), {"weight": (40, 64, 3, 3)}, r"weight must be \(n, 64, 1, 1\)"),
    "few": ("PointConvolution", Sizes(channels=4), {}, "4 to 40 channels, no multiples of 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_launched(case: str):
    name, sizes, changed, words = REFUSED[case]
    run = Run(name, sizes, **changed)
    with pytest.raises(ExecutorError, match=words):
        run.pictures.run()
    assert run.device.launched == []
    assert run.calls == []

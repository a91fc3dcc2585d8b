"""Computes 3x3 convolutions by cuDNN, bias and residual in the epilogue. Pixels are (b, h, w, c).

Each kind of convolution is measured once, in a run that is not recorded: the first of the heuristics' plans is not
always the fastest.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from math import prod
from typing import Any

from ....engine.errors import ExecutorError
from ...device.launch import POINTER
from .choices import Choices
from .cudnn import Cudnn
from .device import KernelDevice
from .sizes import BF16_BYTES, PACK, whole_packs
from .timing import each_milliseconds

SIDE = 3
WORKSPACE_BYTES = 64 << 20
PLANS = 3
"""The number of the heuristics' plans that are measured."""
_PAGE = 256
"""The bytes that places in shared memory are a multiple of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionShape:
    """Describes a convolution of (b, height, width, channels) to as many pixels, or a quarter of them if it halves.

    There are zeros all around the picture, or below and right of it if it halves.
    """

    pictures: int
    height: int
    width: int
    channels: int
    filters: int
    halves: bool
    residual: bool

    @property
    def result(self) -> tuple[int, int, int, int]:
        """The extents of the result."""
        step = 2 if self.halves else 1
        return self.pictures, self.height // step, self.width // step, self.filters


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionCall:
    """Holds the addresses of a call; filters and biases come as `NodeWeights` prepares them."""

    x: int
    filters: int
    bias: int
    y: int
    residual: int = 0


class Convolutions:
    """Computes convolutions on a device."""

    def __init__(self, device: KernelDevice, cudnn: Cudnn) -> None:
        self._device, self._cudnn = device, cudnn
        versions = cudnn.library.__version__, cudnn.library.backend_version(), PLANS, WORKSPACE_BYTES
        self._choices = Choices.open(device, "cuDNN's convolutions", versions)
        self._plans: dict[ConvolutionShape, _Plans] = {}

    def __call__(self, shape: ConvolutionShape, call: ConvolutionCall) -> None:
        """Enqueue a convolution. Channels that are no multiple of PACK are copied to some that are, and back."""
        plans = self._plans.get(shape) or self._made(shape)
        pixels, result_pixels = shape.pictures * shape.height * shape.width, prod(shape.result[:3])
        x_bytes, y_bytes = _wide_bytes(pixels, shape.channels), _wide_bytes(result_pixels, shape.filters)
        workspace = self._device.scratch(max(_PAGE, plans.workspace_bytes + x_bytes + y_bytes))
        wide_x = workspace + plans.workspace_bytes
        x, y = wide_x if x_bytes else call.x, wide_x + x_bytes if y_bytes else call.y
        if x_bytes:
            copy_channels(self._device, call.x, x, pixels, shape.channels, whole_packs(shape.channels))
        addresses = {"x": x, "filters": call.filters, "bias": call.bias, "y": y}
        if shape.residual:
            addresses["residual"] = call.residual
        packed = {plans.tensors[name]: address for name, address in addresses.items()}
        self._run(shape, plans, packed, workspace)
        if y_bytes:
            copy_channels(self._device, y, call.y, result_pixels, whole_packs(shape.filters), shape.filters)

    def _run(self, shape: ConvolutionShape, plans: _Plans, addresses: dict[Any, int], workspace: int) -> None:
        def run(index: int) -> None:
            plans.graph.execute_plan_at_index(addresses, workspace, index, handle=self._cudnn.handle)

        def measure() -> dict[int, float]:
            none_runs = f"cuDNN runs none of the plans that it has for {shape}"  # it has several types of errors
            return each_milliseconds(self._device, plans.indices, run, Exception, none_runs)

        if not plans.measured and not self._device.recording:
            if len(plans.indices) > 1:
                plans.best = self._choices.fastest(shape, plans.indices, measure)
            plans.measured = True
        run(plans.best)

    def _made(self, shape: ConvolutionShape) -> _Plans:
        if self._device.recording:
            raise ExecutorError("a convolution of this shape runs for the first time while a graph is recorded")
        cudnn, kind = self._cudnn.library, self._cudnn.library.data_type.BFLOAT16
        graph = self._cudnn.graph(kind)
        tensors: dict[str, Any] = {}

        def tensor(name: str, pictures: int, height: int, width: int, channels: int) -> Any:
            dims, strides = _layout(pictures, height, width, channels)
            tensors[name] = graph.tensor(name=name, dim=dims, stride=strides, data_type=kind)
            return tensors[name]

        result = (*shape.result[:3], whole_packs(shape.filters))
        x = tensor("x", shape.pictures, shape.height, shape.width, whole_packs(shape.channels))
        filters = tensor("filters", whole_packs(shape.filters), SIDE, SIDE, whole_packs(shape.channels))
        before, step = (0, 2) if shape.halves else (1, 1)
        y = graph.conv_fprop(
            x, filters, pre_padding=[before] * 2, post_padding=[1, 1], stride=[step] * 2, dilation=[1, 1]
        )
        y = graph.add(y, tensor("bias", 1, 1, 1, whole_packs(shape.filters)))
        if shape.residual:
            y = graph.add(y, tensor("residual", *result))
        dims, strides = _layout(*result)
        tensors["y"] = y.set_output(True).set_dim(dims).set_stride(strides).set_data_type(kind)
        try:
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A])
        except Exception as error:  # cuDNN has an exception type of its own for each step
            raise ExecutorError(f"cuDNN has no convolution for {shape}: {error}") from error
        plans = _Plans(graph=graph, tensors=tensors)
        plans.build(shape)
        self._plans[shape] = plans
        return plans

    def close(self) -> None:
        """Free what the graphs hold."""
        self._plans.clear()


def _wide_bytes(pixels: int, channels: int) -> int:
    """Return the bytes of pixels of aligned channels; 0 if they are so already."""
    size = pixels * whole_packs(channels) * BF16_BYTES
    return -(-size // _PAGE) * _PAGE if channels % PACK else 0


def _layout(pictures: int, height: int, width: int, channels: int) -> tuple[list[int], list[int]]:
    """Return extents and strides of (b, h, w, c) in cuDNN's order, (b, c, h, w)."""
    return [pictures, channels, height, width], [height * width * channels, 1, width * channels, channels]


def copy_channels(device: KernelDevice, x: int, y: int, rows: int, width: int, result_width: int) -> None:
    """Enqueue a copy of rows to rows of another width, with zeros for what lacks."""
    values = rows * result_width
    device.launch(
        device.function("channels"),
        -(-values // 256),
        256,
        (
            (x, POINTER),
            (y, POINTER),
            (values, ctypes.c_longlong),
            (width, ctypes.c_int),
            (result_width, ctypes.c_int),
        ),
    )


@dataclass(slots=True, kw_only=True)
class _Plans:
    """Holds cuDNN's graph of a shape, its tensors by name, and the plans of it that can run."""

    graph: Any
    tensors: dict[str, Any]
    indices: list[int] = field(default_factory=list)
    workspace_bytes: int = 0
    best: int = 0
    measured: bool = False

    def build(self, shape: ConvolutionShape) -> None:
        """Build the first plans that cuDNN supports after all and that need no more than WORKSPACE_BYTES."""
        reasons: list[str] = []
        for index in range(self.graph.get_execution_plan_count()):
            if len(self.indices) == PLANS:
                break
            try:
                self.graph.build_plan_at_index(index)
                size = self.graph.get_workspace_size_plan_at_index(index)
            except Exception as error:  # cuDNN has several types for a plan that it does not support
                reasons.append(str(error))
                continue
            if size <= WORKSPACE_BYTES:
                self.indices.append(index)
                self.workspace_bytes = max(self.workspace_bytes, -(-size // _PAGE) * _PAGE)
        if not self.indices:
            raise ExecutorError(
                f"cuDNN has no convolution for {shape}: {'; '.join(reasons[:1]) or 'too little memory'}"
            )
        self.best = self.indices[0]

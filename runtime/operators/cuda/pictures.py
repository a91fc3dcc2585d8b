"""Computes each fused operator of pictures from kernels and library calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import partial
from math import prod

from ...device.launch import POINTER
from ..definition import Definition
from .convolutions import SIDE, ConvolutionCall, ConvolutionShape
from .enqueuing import Enqueuing
from .kernels import Kernels
from .products import LinearCall, Matrix
from .sizes import PACK
from .tensors import Tensors
from .weights import NodeWeights

THREADS = 256
CHUNKS = 1024
"""The parts that a picture's pixels are summed in at most: as many blocks as an H100 runs at once."""
_SUM_BYTES = 8
"""The bytes of two sums, or of a mean and an inverse deviation."""


class Pictures(Enqueuing):
    """Computes one operator of pictures (b, h, w, c); each method for an operator allocates its outputs.

    Args:
        kernels: What it is computed with.
        definition: The operator and its format.
        tensors: Its tensors in this call.
        weights: What its node keeps of its weights.
    """

    def __init__(self, kernels: Kernels, definition: Definition, tensors: Tensors, weights: NodeWeights) -> None:
        super().__init__(kernels.device)
        self._kernels, self._t, self._weights = kernels, tensors, weights
        self._operator = definition.operator

    def run(self) -> None:
        """Compute the operator."""
        _COMPUTED[self._operator.name](self)

    def _group_norm(self) -> None:
        t, shape = self._t, self._t.pixels("x")
        pictures, height, width, channels = shape
        groups = t.count("num_groups", at_most=channels)
        if channels % PACK or channels > PACK * THREADS or channels % groups:
            raise t.refusal(f"{channels} channels have no kernel for a norm of {groups} groups")
        vectors = [(t.address(name, (channels,)), POINTER) for name in ("weight", "bias")]
        pixels, packs = height * width, channels // PACK
        rows = THREADS // packs
        chunks = max(1, min(CHUNKS, pixels // (4 * rows)))
        means = self._device.scratch(pictures * groups * (chunks + 1) * _SUM_BYTES)
        sums = means + pictures * groups * _SUM_BYTES
        x, extents = (t.address("x", shape), POINTER), ((pixels, ctypes.c_longlong), (chunks, ctypes.c_int))
        macros = {"CHANNELS": channels, "GROUPS": groups}
        function = partial(self._device.function, **macros)
        to_sums, to_means = (sums, POINTER), (means, POINTER)
        self._launch(function("group_statistics"), pictures * chunks, rows * packs, (x, to_sums, *extents))
        self._launch(function("group_means"), pictures * groups, 32, (x, to_sums, to_means, *extents))
        silu = int(self._operator.name == "GroupNormSilu")
        arguments = (x, *vectors, to_means, (t.output("y", shape), POINTER), *extents)
        self._launch(function("group_norm", SILU=silu), pictures * chunks, rows * packs, arguments)

    def _convolution(self) -> None:
        t, (pictures, height, width, channels) = self._t, self._t.pixels("x")
        halves = self._operator.name == "ConvolutionHalving"
        if halves and (height % 2 or width % 2):
            raise t.refusal("height and width of x must be even")
        shape = ConvolutionShape(
            pictures=pictures,
            height=height,
            width=width,
            channels=channels,
            filters=t.num_filters(channels, SIDE),
            halves=halves,
            residual="residual" in self._operator.values,
        )
        if shape.residual and shape.filters % PACK:
            raise t.refusal(f"a residual of {shape.filters} channels, no multiple of {PACK}, has no kernel")
        residual = t.address("residual", shape.result) if shape.residual else 0
        weight, bias = t.address("weight", (shape.filters, channels, SIDE, SIDE)), t.address("bias", (shape.filters,))
        filters, bias = self._weights.filters(weight, bias, shape.filters, channels)
        call = ConvolutionCall(
            x=t.address("x", (pictures, height, width, channels)),
            filters=filters,
            bias=bias,
            residual=residual,
            y=t.output("y", shape.result),
        )
        self._enqueue(partial(self._kernels.convolutions, shape, call))

    def _point_convolution(self) -> None:
        t, shape = self._t, self._t.pixels("x")
        rows, channels = prod(shape[:3]), shape[3]
        filters = t.num_filters(channels, 1)
        if channels % PACK or filters % PACK:
            raise t.refusal(f"{channels} to {filters} channels, no multiples of {PACK}, have no kernel")
        weight = Matrix(
            address=t.address("weight", (filters, channels, 1, 1)), rows=filters, columns=channels, stride=channels
        )
        x = Matrix(address=t.address("x", shape), rows=rows, columns=channels, stride=channels)
        y = Matrix(address=t.output("y", (*shape[:3], filters)), rows=rows, columns=filters, stride=filters)
        call = LinearCall(x=x, weight=weight, bias=t.address("bias", (filters,)), y=y)
        self._enqueue(partial(self._kernels.products, call))

    def _upsample(self) -> None:
        t, shape = self._t, self._t.pixels("x")
        pictures, height, width, channels = shape
        if channels % PACK:
            raise t.refusal(f"{channels} channels, no multiple of {PACK}, have no kernel")
        packs = prod(shape) // PACK
        self._launch(
            self._device.function("upsample", CHANNELS=channels),
            -(-packs // THREADS),
            THREADS,
            (
                (t.address("x", shape), POINTER),
                (t.output("y", (pictures, 2 * height, 2 * width, channels)), POINTER),
                (packs, ctypes.c_longlong),
                (width, ctypes.c_int),
            ),
        )


_COMPUTED: Mapping[str, Callable[[Pictures], None]] = {
    "GroupNorm": Pictures._group_norm,
    "GroupNormSilu": Pictures._group_norm,
    "Convolution": Pictures._convolution,
    "ConvolutionAdd": Pictures._convolution,
    "ConvolutionHalving": Pictures._convolution,
    "PointConvolution": Pictures._point_convolution,
    "UpsampleNearest": Pictures._upsample,
    "Upsample": Pictures._upsample,
}

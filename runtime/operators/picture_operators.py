"""Defines the fused operators of the autoencoder, with their bodies. Pixels are (b, h, w, c).

Convolutions' weights are (outputs, inputs, height, width), as checkpoints have them.
"""

from __future__ import annotations

from collections.abc import Callable

from .body import Body
from .definition import Definition, Operator

AROUND, AFTER, NONE = (1, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0)
"""The zeros above, left, below and right of a picture that a convolution reads."""


def _group_norm(body: Body, _: Definition) -> None:
    body.give(body.narrow(body.group_normed("x", "weight", "bias")), "y")


def _group_norm_silu(body: Body, _: Definition) -> None:
    body.give(body.narrow(body.silu(body.group_normed("x", "weight", "bias"))), "y")


def _convolution(pads: tuple[int, ...], stride: int = 1) -> Callable[[Body, Definition], None]:
    """Return what adds the body of a convolution, with a residual if the operator has one."""

    def add(body: Body, definition: Definition) -> None:
        y = body.convolved("x", "weight", "bias", pads=pads, stride=stride)
        body.give(body.node("Add", y, "residual") if "residual" in definition.operator.values else y, "y")

    return add


def _upsample(body: Body, _: Definition) -> None:
    body.give(body.doubled("x"), "y")


_WEIGHTED = ("x", "weight", "bias")

PICTURE_OPERATORS = (
    Operator(name="GroupNorm", values=_WEIGHTED, outputs=("y",), attributes=("num_groups",), body=_group_norm),
    Operator(name="GroupNormSilu", values=_WEIGHTED, outputs=("y",), attributes=("num_groups",), body=_group_norm_silu),
    Operator(name="Convolution", values=_WEIGHTED, outputs=("y",), body=_convolution(AROUND)),
    Operator(name="ConvolutionAdd", values=(*_WEIGHTED, "residual"), outputs=("y",), body=_convolution(AROUND)),
    Operator(name="ConvolutionHalving", values=_WEIGHTED, outputs=("y",), body=_convolution(AFTER, stride=2)),
    Operator(name="PointConvolution", values=_WEIGHTED, outputs=("y",), body=_convolution(NONE)),
    Operator(name="UpsampleNearest", values=("x",), outputs=("y",), body=_upsample),
    # in bundles of before: TensorRT-RTX's parser takes it for ONNX's own Upsample, whatever its domain
    Operator(name="Upsample", values=("x",), outputs=("y",), body=_upsample),
)

"""Enqueues norm and rotation of queries and keys, and makes them FP8: keys less a mean, both by Hadamard's matrix."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from ...device.launch import POINTER
from ..body import SAMPLED_TOKENS
from .device import KernelDevice
from .enqueuing import Enqueuing
from .sizes import FLOAT32_BYTES, PACK

MEANS = "means"
"""The place of scratch memory that means of keys are in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsCall:
    """Describes the queries or the keys (pictures, tokens, heads * width) of one attention.

    Attributes:
        x: The address of what is normed, bfloat16.
        result: The address of the result; it may be `x` itself, unless that is FP8.
        weights: The addresses of the norm's weights (width,), of the first tokens and of the others.
        tables: The addresses of cosines and sines (tokens, width / 2) float32.
        pictures: How many there are.
        tokens: How many a picture has.
        first_tokens: How many of them are the first.
        heads: How many there are.
        width: Of a head.
        keys: True for keys, False for queries, which are multiplied by 1 / sqrt(width).
        scale: That of an FP8 result, None for bfloat16.
    """

    x: int
    result: int
    weights: tuple[int, int]
    tables: tuple[int, int]
    pictures: int
    tokens: int
    first_tokens: int
    heads: int
    width: int
    keys: bool
    scale: float | None


def compile_heads(device: KernelDevice, width: int, heads: int, *, fp8: bool) -> None:
    """Compile what `enqueue_heads` launches."""
    device.function("heads", HEAD_WIDTH=width, HEADS=heads, FP8=fp8)
    if fp8:
        device.function("key_means", HEAD_WIDTH=width, HEADS=heads)


def enqueue_heads(
    to: Enqueuing, device: KernelDevice, call: HeadsCall, average: Callable[[int, int], None] | None = None
) -> None:
    """Enqueue the norm and the rotation, and for FP8 what makes them lose less by rounding.

    Of ranks that share tokens all keys must lose the same mean: `average` is given the address and the number of the
    means, and enqueues what makes them so.
    """
    numbers = {"HEAD_WIDTH": call.width, "HEADS": call.heads}
    fp8, lanes = call.scale is not None, call.width // PACK
    of = (
        *((address, POINTER) for address in (*call.weights, *call.tables)),
        (call.tokens, ctypes.c_longlong),
        (call.first_tokens, ctypes.c_longlong),
    )
    means = 0
    if fp8 and call.keys:
        count = call.pictures * call.heads * call.width
        means = device.scratch(FLOAT32_BYTES * count, MEANS)
        step = max(call.tokens // SAMPLED_TOKENS, 1)
        to.launch(
            device.function("key_means", **numbers),
            call.pictures * call.heads,
            256 // lanes * lanes,
            ((call.x, POINTER), (means, POINTER), *of, (step, ctypes.c_longlong)),
        )
        if average is not None:
            average(means, count)
    to.launch(
        device.function("heads", **numbers, FP8=fp8),
        call.pictures * call.tokens,
        min(512, -(-call.heads * lanes // 32) * 32),
        (
            (call.x, POINTER),
            (call.result, POINTER),
            *of[:4],
            (means, POINTER),
            *of[4:],
            (1.0 if call.keys else call.width**-0.5, ctypes.c_float),
            (1.0 if call.scale is None else 1 / call.scale, ctypes.c_float),
        ),
    )

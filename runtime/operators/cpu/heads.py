"""Computes FP8 queries, keys and values of which each rank has some tokens: the mean of keys is that of all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...flow.group import Group
from ..body import SAMPLED_TOKENS, Body
from ..definition import Definition, Format, scale_of
from ..kernels import Attribute, Call
from .bodies import PRECISION, BodySession, Value, definition_session
from .exchange import Array
from .memory import value_of

_NORMS = {"q": "query_norm", "k": "key_norm", "v": ""}
"""The norms whose weights tell the width of queries' and keys' heads."""


class SharedHeads:
    """Computes `Heads` and `JointHeads` to FP8.

    Each rank takes the mean of some of its keys, and all take off the mean of these: softmax does not see what all keys
    have in common, but it would see means that differ.
    """

    def __init__(self, group: Group, definition: Definition, attributes: Mapping[str, Attribute], threads: int) -> None:
        form = definition.format
        assert form.result
        self._group, self._definition = group, definition
        wide = Format(operands=form.operands, branches=form.branches)
        self._wide = Definition(definition.operator, wide)
        self._session = definition_session(self._wide, attributes, threads)
        self._narrow = {name: _rounding(name, norm, attributes, threads) for name, norm in _NORMS.items()}

    def __call__(self, call: Call) -> None:
        given = dict(zip(self._definition.inputs, call.inputs, strict=True))
        x = given["x" if "x" in given else "image"].shape
        tokens = dict.fromkeys("qkv", x[1] + (given["text"].shape[1] if "text" in given else 0))
        if "queried" in given:
            tokens["q"] = given["queried"].shape[1]
        wide = {name: np.empty((x[0], tokens[name], x[2]), np.float32) for name in "qkv"}
        values = {name: Value(*given[name]) for name in self._wide.inputs}
        self._session(values, {name: value_of(array) for name, array in wide.items()})
        wide["k"] -= self._mean(wide["k"])
        for index, name in enumerate(self._definition.operator.outputs):
            norm = {_NORMS[name]: Value(*given[_NORMS[name]])} if _NORMS[name] else {}
            rounded = Value(call.output(index, wide[name].shape), wide[name].shape)
            self._narrow[name]({"x": value_of(wide[name]), **norm}, {"y": rounded})

    def _mean(self, keys: Array) -> Array:
        """Return the mean of some keys (b, s, hidden) of all ranks, (b, 1, hidden)."""
        step = max(keys.shape[1] // SAMPLED_TOKENS, 1)
        mean = keys[:, ::step].mean(axis=1, keepdims=True, dtype=np.float32)
        self._group.average(mean.ctypes.data, mean.size)
        return mean


def _rounding(name: str, norm: str, attributes: Mapping[str, Attribute], threads: int) -> BodySession:
    """Return what makes queries, keys or values FP8: as the operators' bodies do it, less the mean of keys."""
    body = Body(PRECISION)
    turned = body.hadamard("x", norm) if norm else "x"
    body.give(body.result(turned, scale_of(name)), "y")
    inputs = {"x": "fp32", **({norm: PRECISION.value} if norm else {})}
    return BodySession(body, inputs, {"y": "fp8"}, attributes, threads)

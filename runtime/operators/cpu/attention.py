"""Computes attention of which each rank has some tokens: heads are exchanged, and each rank attends by some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....engine.errors import ExecutorError
from ....engine.number_types import NUMBER_TYPES
from ...flow.group import Group
from ..catalogue import OPERATORS
from ..definition import Definition, Format, Kind
from ..kernels import Attribute, Call
from .bodies import TYPES, BodySession, Value, definition_session
from .exchange import Array, gathered, returned
from .memory import array_at, value_of

_HEADS = "num_heads"


class SharedAttend:
    """Computes `Attend`, or with a linear layer `AttendBesideGelu`, in any format."""

    def __init__(self, group: Group, definition: Definition, attributes: Mapping[str, Attribute], threads: int) -> None:
        self._group, self._definition = group, definition
        form = definition.format
        heads = attributes[_HEADS]
        assert isinstance(heads, int)
        if heads % group.size:
            raise ExecutorError(f"{heads} heads cannot be divided among {group.size} devices")
        own = {**attributes, _HEADS: heads // group.size}
        attend = Definition(OPERATORS["Attend"], Format(attention=form.attention, result=form.result))
        self._attend = definition_session(attend, own, threads)
        self._operand = TYPES[Kind.FP8 if form.attention else Kind.OWN]
        self._result = TYPES[Kind.FP8 if form.result else Kind.OWN]
        self._beside: BodySession | None = None
        self._linear: Definition | None = None
        if definition.operator.products:
            form = Format(operands=form.operands, result=form.result, branches=form.branches)
            self._linear = Definition(OPERATORS["LinearGelu"], form)
            self._beside = definition_session(self._linear, attributes, threads)

    def __call__(self, call: Call) -> None:
        given = dict(zip(self._definition.inputs, call.inputs, strict=True))
        q, k, v = (array_at(given[name].address, given[name].shape, self._operand) for name in "qkv")
        mixed = self._mixed(q, k, v)
        if self._beside is None or self._linear is None:
            self._write(call, mixed)
            return
        values = {name: Value(*given[name]) for name in self._linear.inputs}
        (product,) = self._linear.operator.products
        beside = np.empty((*q.shape[:2], given[product.weight].shape[0]), mixed.dtype)
        self._beside(values, {"y": value_of(beside)})
        self._write(call, np.concatenate([mixed, beside], axis=2))

    def _mixed(self, q: Array, k: Array, v: Array) -> Array:
        """Return the attention of this rank's tokens (b, s, hidden)."""
        group, queries, keys = self._group, self._counts(q.shape[1]), self._counts(k.shape[1])
        whole = {
            name: gathered(group, x, tokens) for name, x, tokens in (("q", q, queries), ("k", k, keys), ("v", v, keys))
        }
        mixed = np.empty(whole["q"].shape, NUMBER_TYPES[self._result].numpy)
        self._attend({name: value_of(x) for name, x in whole.items()}, {"mixed": value_of(mixed)})
        return returned(group, mixed, queries)

    def _counts(self, own: int) -> Sequence[int]:
        """Return how many tokens each rank has, of those that this rank has `own` of."""
        shares = self._group.shares
        assert shares is not None
        for counts in (shares.joint, shares.target):
            if counts[self._group.rank] == own:
                return counts
        raise ExecutorError(f"attention of {own} tokens, of which the group has {shares}")

    def _write(self, call: Call, result: NDArray[Any]) -> None:
        array_at(call.output(0, result.shape), result.shape, self._result)[...] = result

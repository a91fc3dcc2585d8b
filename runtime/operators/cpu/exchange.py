"""Exchanges heads between ranks in host memory: each has some tokens of all heads, or all tokens of some heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...flow.group import Group, Piece

Array = NDArray[Any]


def gathered(group: Group, x: Array, tokens: Sequence[int]) -> Array:
    """Return all tokens of this rank's heads (b, sum of `tokens`, hidden / N), from its tokens of all heads.

    Args:
        group: The ranks.
        x: (b, this rank's tokens, hidden).
        tokens: How many each rank has.
    """
    sent = [np.ascontiguousarray(part) for part in np.split(x, group.size, axis=2)]
    received = [np.empty((x.shape[0], count, x.shape[2] // group.size), x.dtype) for count in tokens]
    _swap(group, sent, received)
    return np.concatenate(received, axis=1)


def returned(group: Group, x: Array, tokens: Sequence[int]) -> Array:
    """Return this rank's tokens of all heads (b, its tokens, hidden), from all tokens of its heads (b, s, hidden / N).

    Args:
        group: The ranks.
        x: All tokens of this rank's heads.
        tokens: How many each rank has.
    """
    sent = [np.ascontiguousarray(part) for part in np.split(x, np.cumsum(tokens)[:-1], axis=1)]
    shape = x.shape[0], tokens[group.rank], x.shape[2]
    received = [np.empty(shape, x.dtype) for _ in range(group.size)]
    _swap(group, sent, received)
    return np.concatenate(received, axis=2)


def _swap(group: Group, sent: Sequence[Array], received: Sequence[Array]) -> None:
    group.swap(_pieces(sent), _pieces(received))


def _pieces(arrays: Sequence[Array]) -> list[Piece]:
    return [Piece(rank, array.ctypes.data, array.nbytes) for rank, array in enumerate(arrays)]

"""Heads that are exchanged between ranks: there, and back again."""

from __future__ import annotations

import numpy as np
import pytest
from thread_ranks import as_ranks

from kontext_trt.runtime.operators.cpu.exchange import gathered, returned


@pytest.mark.parametrize("tokens", [(5, 4), (4, 3, 3), (1, 0), (2, 0, 1)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_all_tokens_of_some_heads_and_back(tokens: tuple[int, ...], dtype: type):
    size, hidden = len(tokens), 12
    whole = np.random.default_rng(0).integers(0, 200, (2, sum(tokens), hidden)).astype(dtype)
    parts = np.split(whole, np.cumsum(tokens)[:-1], axis=1)
    heads = np.split(whole, size, axis=2)

    def exchange(group) -> np.ndarray:
        mine = gathered(group, np.ascontiguousarray(parts[group.rank]), tokens)
        assert np.array_equal(mine, heads[group.rank])
        return returned(group, mine, tokens)

    for found, part in zip(as_ranks(size, exchange), parts, strict=True):
        assert found.dtype == dtype
        assert np.array_equal(found, part)

"""Attention of which each rank has some tokens, in every format, beside the whole operator's body."""

from __future__ import annotations

import numpy as np
import pytest
from fused_models import Sizes
from shared_kernels import Values, called, drawn, given, whole_body
from thread_ranks import ThreadGroup, as_ranks

from kontext_trt import ExecutorError
from kontext_trt.runtime.flow.shares import Shares
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cpu.attention import SharedAttend

ATTENDING = [name for name, one in DEFINITIONS.items() if one.operator.attention]
SIZES = Sizes(text=0, image=65, heads=6, width=16, wide=40)
SHARES = {
    2: Shares(text=(12, 12), target=(13, 12), reference=(8, 8)),
    3: Shares(text=(8, 8, 8), target=(9, 8, 8), reference=(5, 6, 5)),
}


def attend(name: str, size: int, queried: str) -> tuple[np.ndarray, np.ndarray]:
    """What ranks gave, one after another, and the whole operator."""
    definition, shares = DEFINITIONS[name], SHARES[size]
    values, attributes = drawn(definition, SIZES)
    rows = getattr(shares, queried)
    values |= {one: array[:, : sum(rows)] for one, array in values.items() if one in ("q", "x")}
    ends = {"q": rows, "x": rows, "k": shares.joint, "v": shares.joint}

    def own(rank: int) -> Values:
        return {
            one: array[:, sum(ends[one][:rank]) : sum(ends[one][: rank + 1])] if one in ends else array
            for one, array in values.items()
        }

    def run(group: ThreadGroup) -> np.ndarray:
        group.shares = shares
        (found,) = called(SharedAttend(group, definition, attributes, 1), definition, own(group.rank))
        return found

    found = np.concatenate(as_ranks(size, run), axis=1)
    (whole,) = whole_body(definition, attributes, values)
    return found, whole


@pytest.mark.parametrize("name", ATTENDING)
@pytest.mark.parametrize(("size", "queried"), [(2, "joint"), (3, "target")])
def test_it_is_the_whole_operators(name: str, size: int, queried: str):
    found, whole = attend(name, size, queried)
    assert found.shape == whole.shape
    if DEFINITIONS[name].format.result:
        assert (found == whole).mean() > 0.995, "a value between two falls the other way"
        assert np.abs(found.astype(int) - whole).max() <= 1
        assert len(np.unique(whole)) > 50
    else:
        np.testing.assert_allclose(found, whole, atol=1e-5)
        assert np.abs(whole).max() > 0.1


def test_heads_and_tokens_that_do_not_fit_are_told():
    definition = DEFINITIONS["Attend"]
    group = as_ranks(4, lambda group: group)[0]
    with pytest.raises(ExecutorError, match="6 heads cannot be divided among 4 devices"):
        SharedAttend(group, definition, {"num_heads": 6}, 1)
    (alone,) = as_ranks(1, lambda group: group)
    alone.shares = Shares(text=(5,), target=(3,), reference=(0,))
    values, attributes = drawn(definition, SIZES)
    with pytest.raises(ExecutorError, match="attention of 65 tokens, of which the group has Shares"):
        called(SharedAttend(alone, definition, attributes, 1), definition, values)


def test_inputs_are_read_where_they_lie():
    """A kernel's inputs are not its own to write to."""
    definition = DEFINITIONS["Attend"]
    values, attributes = drawn(definition, SIZES)
    before = {name: array.copy() for name, array in values.items()}
    (alone,) = as_ranks(1, lambda group: group)
    alone.shares = Shares(text=(24,), target=(41,), reference=(0,))
    called(SharedAttend(alone, definition, attributes, 1), definition, values)
    assert all(np.array_equal(values[name], array) for name, array in before.items())
    assert given(definition, values)[0].shape == values["q"].shape

"""FP8 queries, keys and values of which each rank has some tokens: keys lose the mean of all ranks' keys."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fused_models import Sizes
from shared_kernels import Values, called, drawn, whole_body
from thread_ranks import ThreadGroup, as_ranks

from kontext_trt.runtime.operators.body import SAMPLED_TOKENS
from kontext_trt.runtime.operators.catalogue import DEFINITIONS
from kontext_trt.runtime.operators.cpu.heads import SharedHeads

TO_FP8 = [name for name, one in DEFINITIONS.items() if one.operator.separate_results and one.format.result]
SIZES = Sizes(text=24, image=40, heads=3, width=32)
TABLES = ("cos", "sin", "queried_cos", "queried_sin")
SIZE = 2
Average = Callable[[ThreadGroup, int, int], None]


def rows_of(name: str, joint: bool, count: int, rank: int) -> np.ndarray:
    """The rows of the whole input that a rank has: half of it, of a joint table half of the text and of the image."""
    if joint and name in TABLES:
        text = np.array_split(np.arange(SIZES.text), SIZE)[rank]
        return np.concatenate([text, SIZES.text + np.array_split(np.arange(SIZES.image), SIZE)[rank]])
    return np.array_split(np.arange(count), SIZE)[rank]


def apart(name: str, average: Average | None = None) -> dict[str, float]:
    """The share of values, by output, that differ between ranks and the whole operator.

    No rank has more tokens than are sampled, and all have equally many: so the mean of their means is that of all.
    """
    definition = DEFINITIONS[name]
    joint = definition.operator.name == "JointHeads"
    values, attributes = drawn(definition, SIZES)
    text, image = ("text", "image") if joint else ("queried", "x")
    # ranks whose keys have means of their own: a constant for each half
    for one in (text, image):
        if values[one].dtype == np.float32:
            values[one] = values[one] + np.repeat([-1.0, 1.0], values[one].shape[1] // 2)[:, None].astype(np.float32)
    assert SIZES.text + SIZES.image < 2 * SAMPLED_TOKENS

    def own(rank: int) -> Values:
        tokens = {text, image, *TABLES} & values.keys()
        parts: Values = {}
        for one, array in values.items():
            if one not in tokens:
                parts[one] = array
                continue
            axis = 0 if one in TABLES else 1
            rows = rows_of(one, joint, array.shape[axis], rank)
            parts[one] = np.ascontiguousarray(np.take(array, rows, axis=axis))
        return parts

    def run(group: ThreadGroup) -> list[np.ndarray]:
        if average is not None:
            group.average = lambda address, count: average(group, address, count)  # type: ignore[method-assign]
        return called(SharedHeads(group, definition, attributes, 1), definition, own(group.rank))

    found, whole = as_ranks(SIZE, run), whole_body(definition, attributes, values)
    shares: dict[str, float] = {}
    for index, output in enumerate(definition.operator.outputs):
        one = whole[index]
        assert len(np.unique(one)) > 20, output
        count = one.shape[1]
        for rank in range(SIZE):
            rows = np.array_split(np.arange(count), SIZE)[rank]
            if joint:
                rows = rows_of("cos", True, count, rank)
            differing = float((found[rank][index] != one[:, rows]).mean())
            shares[output] = max(shares.get(output, 0.0), differing)
    return shares


@pytest.mark.parametrize("name", TO_FP8)
def test_it_is_the_whole_operators(name: str):
    """But for values between two that fall the other way."""
    assert max(apart(name).values()) < 0.005


@pytest.mark.parametrize("name", ["Heads_to_fp8", "JointHeads_to_fp8"])
def test_it_is_not_with_a_mean_of_each_ranks_own(name: str):
    """The check above would fail; queries and values do not depend on it."""
    found = apart(name, lambda group, address, count: None)
    assert found["k"] > 0.2
    assert max(found["q"], found["v"]) < 0.005

"""EditBench's cases: a fixed set, and chains of edits."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from kontext_trt.benchmarks.quality.editbench.cases import KINDS, NUM_CASES, NUM_CHAINS, TURNS, EditCase, cases, chain
from kontext_trt.engine.sizes import check_size


def test_the_set_is_fixed_and_mixed(bench: tuple[EditCase, ...]):
    assert NUM_CASES == len(bench) == 200
    assert [case.number for case in bench] == list(range(200))
    assert bench == cases()
    assert bench[:12] == cases(12)
    assert {case.kind for case in bench[:12]} == set(KINDS)
    assert Counter(case.sample.task for case in bench) == {
        task: number for tasks in KINDS.values() for task, number in tasks.items()
    }
    assert len({case.sample.instruction for case in bench}) > 180
    for case in bench:
        assert check_size(case.sample.size)
    with pytest.raises(ValueError, match="ask for 1 to 200 of them, not 201"):
        cases(201)


def test_chains_go_on_from_scene_to_scene():
    for number in range(NUM_CHAINS):
        samples = chain(number)
        assert samples == chain(number)
        assert tuple(sample.task for sample in samples) == TURNS
        stays = np.ones(samples[0].target().shape[:2], bool)
        for sample, following in pairwise(samples):
            assert following.before == sample.edit.after
        for sample in samples:
            stays &= sample.stays()
        first, last = samples[0].reference(), samples[-1].target()
        assert first is not None
        assert stays.sum() > 1000
        assert np.array_equal(first[stays], last[stays])


def test_longer_chains_begin_with_the_shorter_ones():
    for number in range(16):
        samples = chain(number, 12)
        assert samples[: len(TURNS)] == chain(number)
        assert tuple(sample.task for sample in samples) == 2 * TURNS
        stays = np.logical_and.reduce([sample.stays() for sample in samples])
        first = samples[0].reference()
        assert first is not None
        assert stays.sum() > 1000
        assert np.array_equal(first[stays], samples[-1].target()[stays])

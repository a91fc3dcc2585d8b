"""The samples that the small model is trained and judged on."""

from collections import Counter

import numpy as np
import pytest

from kontext_trt.benchmarks.quality.editbench.drawing import is_held_out, is_held_out_word
from kontext_trt.benchmarks.quality.editbench.samples import TEXT_TO_IMAGE, WEIGHTS, EditSample, draw_sample
from kontext_trt.benchmarks.quality.editbench.scene import SIZES
from kontext_trt.engine.sizes import check_size


def things_shown(sample: EditSample) -> set[tuple[str, str]]:
    scenes = (sample.before, sample.edit.after)
    return {(thing.colour, thing.shape) for scene in scenes if scene is not None for thing in scene.things}


@pytest.mark.parametrize("task", WEIGHTS)
@pytest.mark.parametrize("held_out", [False, True])
def test_target_is_the_reference_where_the_mask_says_stay(task: str, held_out: bool):
    kept = 0
    for seed in range(40):
        sample = draw_sample(seed, task=task, held_out=held_out)
        target, reference, stays = sample.target(), sample.reference(), sample.stays()
        assert target.shape == (sample.size[1], sample.size[0], 3)
        assert stays.shape == target.shape[:2]
        assert not stays.all()
        if reference is None:
            assert task == TEXT_TO_IMAGE
            assert not stays.any()
            continue
        assert np.array_equal(target[stays], reference[stays])
        assert not np.array_equal(target, reference)
        kept += stays.any()
    local = task not in ("light", "style", "creature", TEXT_TO_IMAGE)
    assert kept == (40 if local else 0)


def test_a_seed_is_a_sample():
    for seed in range(30):
        one, two = draw_sample(seed), draw_sample(seed)
        assert one == two
        assert np.array_equal(one.target(), two.target())
    assert draw_sample(1) != draw_sample(1, held_out=True)
    with pytest.raises(ValueError, match="task must be one of recolour"):
        draw_sample(0, task="paint")


def test_sizes_are_possible():
    assert {draw_sample(seed).size for seed in range(200)} == set(SIZES)
    assert [check_size(size) for size in SIZES] == list(SIZES)


def test_training_never_sees_what_is_held_out():
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(1500):
        sample = draw_sample(seed)
        seen.update(things_shown(sample))
        for scene in (sample.before, sample.edit.after):
            assert scene is None or scene.sign is None or not is_held_out_word(scene.sign.word)
    assert not [pair for pair in seen if is_held_out(*pair)]
    assert len(seen) == sum(not is_held_out(*pair) for pair in seen)
    assert len(seen) > 80
    held = [draw_sample(seed, held_out=True) for seed in range(300)]
    assert sum(any(is_held_out(*pair) for pair in things_shown(sample)) for sample in held) > 150
    assert all(is_held_out_word(s.edit.after.sign.word) for s in held if s.edit.after.sign is not None)


def test_stays_is_wide_enough_and_not_too_wide():
    """What changes lies in the boxes, and the boxes are not much larger than what changes."""
    for seed in range(60):
        sample = draw_sample(seed, task="recolour")
        changed = (sample.target() != sample.reference()).any(axis=2)
        touched = ~sample.stays()
        assert changed[touched].mean() > 0.15

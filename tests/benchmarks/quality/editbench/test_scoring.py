"""EditBench's judge: what it accepts and refuses."""

from dataclasses import replace

import numpy as np
import pytest

from kontext_trt.benchmarks.quality.editbench.cases import EditCase
from kontext_trt.benchmarks.quality.editbench.letters import ALPHABET
from kontext_trt.benchmarks.quality.editbench.render import render
from kontext_trt.benchmarks.quality.editbench.samples import EditSample, draw_sample
from kontext_trt.benchmarks.quality.editbench.scene import COLOURS, Scene
from kontext_trt.benchmarks.quality.editbench.scoring import decibels, read_word, score, worst_window


def only(bench: tuple[EditCase, ...], task: str) -> list[EditSample]:
    return [case.sample for case in bench if case.sample.task == task]


def with_last_thing(scene: Scene, **changes: object) -> Scene:
    return replace(scene, things=(*scene.things[:-1], replace(scene.things[-1], **changes)))


def test_known_answers_succeed(bench: tuple[EditCase, ...]):
    for case in bench:
        one = score(case.sample, case.sample.target())
        assert one.success, case.sample.instruction
        assert one.wrong == one.inside == 0
        assert decibels(one.inside) == pytest.approx(99)


def test_doing_nothing_fails(bench: tuple[EditCase, ...]):
    """The untouched reference, and a grey picture where there is none."""
    for case in bench:
        reference = case.sample.reference()
        nothing = np.full_like(case.sample.target(), 128) if reference is None else reference
        assert not score(case.sample, nothing).success, case.sample.instruction


def test_another_samples_answer_fails(bench: tuple[EditCase, ...]):
    for case in bench:
        other = next(
            one.sample.target()
            for one in bench[case.number + 1 :] + bench
            if one.sample.size == case.sample.size and one is not case
        )
        assert not score(case.sample, other).success, case.sample.instruction


def test_a_wrong_colour_fails(bench: tuple[EditCase, ...]):
    for sample in only(bench, "recolour"):
        assert sample.before is not None
        (new,) = set(sample.edit.after.things) - set(sample.before.things)
        for colour in set(COLOURS) - {new.colour, sample.edit.after.backdrop.colour}:
            things = tuple(replace(one, colour=colour) if one is new else one for one in sample.edit.after.things)
            wrong = render(replace(sample.edit.after, things=things))
            assert not score(sample, wrong).success, (sample.instruction, colour)


def test_an_edit_in_the_wrong_place_fails(bench: tuple[EditCase, ...]):
    for sample in only(bench, "add"):
        after = sample.edit.after
        taken = {thing.cell for thing in after.things}
        row = None if after.sign is None else after.sign.row
        for cell in {(row, column) for row in range(3) for column in range(3)} - taken:
            if cell[0] != row:
                assert not score(sample, render(with_last_thing(after, cell=cell))).success, sample.instruction


def test_damage_where_all_must_stay_fails_and_is_seen_outside(bench: tuple[EditCase, ...]):
    for sample in only(bench, "remove"):
        damaged = sample.target()
        rows, columns = np.nonzero(sample.stays())
        y, x = int(rows[len(rows) // 2]), int(columns[len(rows) // 2])
        damaged[max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8] ^= 128
        one = score(sample, damaged)
        assert not one.success
        assert one.outside is not None
        assert decibels(one.outside) < 40


def test_a_little_blur_and_noise_succeed(bench: tuple[EditCase, ...]):
    """What the autoencoder does to any picture is no failed edit."""
    rng = np.random.default_rng(0)
    for case in bench[:60]:
        target = case.sample.target().astype(np.float32)
        padded = np.pad(target, ((1, 1), (1, 1), (0, 0)), mode="edge")
        soft = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] + 4 * target) / 8
        noisy = np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)
        assert score(case.sample, noisy).success, case.sample.instruction


def test_words_are_read_letter_by_letter():
    sample = draw_sample(0, held_out=True, task="letters")
    assert sample.edit.after.sign is not None
    word = sample.edit.after.sign.word
    for letter in ALPHABET:
        other = letter + word[1:]
        scene = replace(sample.edit.after, sign=replace(sample.edit.after.sign, word=other))
        assert read_word(render(scene), scene) == other
        assert score(sample, render(scene)).success == (other == word)


def test_windows_are_found_wherever_they_lie():
    wrong = np.zeros((48, 40), bool)
    assert worst_window(wrong) == 0
    wrong[21:25, 9:25] = True
    assert worst_window(wrong) == 4 * 16 / 256


def test_answers_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"the known answer is \(\d+, \d+, 3\), this one is \(8, 8, 3\)"):
        score(draw_sample(0), np.zeros((8, 8, 3), np.uint8))

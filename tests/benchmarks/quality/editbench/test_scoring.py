"""EditBench: what its judge accepts and refuses, and the command."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kontext_trt.benchmarks.quality.editbench.cases import KINDS, NUM_CASES, NUM_CHAINS, TURNS, Case, cases, chain
from kontext_trt.benchmarks.quality.editbench.contact_sheet import contact_sheet
from kontext_trt.benchmarks.quality.editbench.evaluation import Answer, Evaluation, Row, Turn
from kontext_trt.benchmarks.quality.editbench.letters import ALPHABET
from kontext_trt.benchmarks.quality.editbench.render import Pixels, render
from kontext_trt.benchmarks.quality.editbench.samples import Sample, draw_sample
from kontext_trt.benchmarks.quality.editbench.scene import COLOURS, Scene
from kontext_trt.benchmarks.quality.editbench.scoring import decibels, read_word, score, worst_window
from kontext_trt.engine.sizes import check_size


@pytest.fixture(scope="module")
def bench() -> tuple[Case, ...]:
    return cases()


def only(bench: tuple[Case, ...], task: str) -> list[Sample]:
    return [case.sample for case in bench if case.sample.task == task]


def with_last_thing(scene: Scene, **changes: object) -> Scene:
    return replace(scene, things=(*scene.things[:-1], replace(scene.things[-1], **changes)))


def test_the_set_is_fixed_and_mixed(bench: tuple[Case, ...]):
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


def test_known_answers_succeed(bench: tuple[Case, ...]):
    for case in bench:
        one = score(case.sample, case.sample.target())
        assert one.success, case.sample.instruction
        assert one.wrong == one.inside == 0
        assert decibels(one.inside) == pytest.approx(99)


def test_doing_nothing_fails(bench: tuple[Case, ...]):
    """The untouched reference, and a grey picture where there is none."""
    for case in bench:
        reference = case.sample.reference()
        nothing = np.full_like(case.sample.target(), 128) if reference is None else reference
        assert not score(case.sample, nothing).success, case.sample.instruction


def test_another_samples_answer_fails(bench: tuple[Case, ...]):
    for case in bench:
        other = next(
            one.sample.target()
            for one in bench[case.number + 1 :] + bench
            if one.sample.size == case.sample.size and one is not case
        )
        assert not score(case.sample, other).success, case.sample.instruction


def test_a_wrong_colour_fails(bench: tuple[Case, ...]):
    for sample in only(bench, "recolour"):
        assert sample.before is not None
        (new,) = set(sample.edit.after.things) - set(sample.before.things)
        for colour in set(COLOURS) - {new.colour, sample.edit.after.backdrop.colour}:
            things = tuple(replace(one, colour=colour) if one is new else one for one in sample.edit.after.things)
            wrong = render(replace(sample.edit.after, things=things))
            assert not score(sample, wrong).success, (sample.instruction, colour)


def test_an_edit_in_the_wrong_place_fails(bench: tuple[Case, ...]):
    for sample in only(bench, "add"):
        after = sample.edit.after
        taken = {thing.cell for thing in after.things}
        row = None if after.sign is None else after.sign.row
        for cell in {(row, column) for row in range(3) for column in range(3)} - taken:
            if cell[0] != row:
                assert not score(sample, render(with_last_thing(after, cell=cell))).success, sample.instruction


def test_damage_where_all_must_stay_fails_and_is_seen_outside(bench: tuple[Case, ...]):
    for sample in only(bench, "remove"):
        damaged = sample.target()
        rows, columns = np.nonzero(sample.stays())
        y, x = int(rows[len(rows) // 2]), int(columns[len(rows) // 2])
        damaged[max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8] ^= 128
        one = score(sample, damaged)
        assert not one.success
        assert one.outside is not None
        assert decibels(one.outside) < 40


def test_a_little_blur_and_noise_succeed(bench: tuple[Case, ...]):
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


def answers(bench: tuple[Case, ...], pictures: list[Pixels]) -> tuple[Answer, ...]:
    return tuple(
        Answer(case, picture, score(case.sample, picture)) for case, picture in zip(bench, pictures, strict=False)
    )


def test_rows_count_what_succeeded(bench: tuple[Case, ...]):
    """Every second answer is right, the others do nothing."""
    pictures = []
    for case in bench[:12]:
        reference = case.sample.reference()
        wrong = np.zeros_like(case.sample.target()) if reference is None else reference
        pictures.append(wrong if case.number % 2 else case.sample.target())
    made = Evaluation(
        answers=answers(bench, pictures), turns=(Turn(task="add", untouched_db=30.0, success=1.0),),
        bundle="b", executor="e", steps=4, seed=0, seconds=1.0,
    )  # fmt: skip
    rows = {row.name: row for row in made.rows}
    assert rows["all"].number == 12
    assert rows["all"].success == 0.5
    assert sum(rows[kind].number for kind in KINDS) == 12
    assert sum(rows[kind].success * rows[kind].number for kind in KINDS) == 6
    assert made.median_outside_db == pytest.approx(99)
    assert "answers" in json.loads(json.dumps(made.to_dict(), default=str))


def test_psnr_of_rows_is_of_the_mean_error():
    sample = draw_sample(3, task="recolour")
    off = np.clip(sample.target().astype(np.int16) + 10, 0, 255).astype(np.uint8)
    error = np.square(off.astype(float) - sample.target()).mean()
    pair = answers((Case(0, "local edit", sample),) * 2, [sample.target(), off])
    row = Row.of("all", pair)
    assert row.success == 1.0
    assert row.inside_db == pytest.approx(decibels(pair[1].score.inside / 2))
    assert 5 < error <= 100


def test_contact_sheet_frames_failures(bench: tuple[Case, ...]):
    right = answers(bench[:1], [bench[0].sample.target()])
    reference = bench[0].sample.reference()
    assert reference is not None
    wrong = answers(bench[:1], [reference])
    red = np.array([205, 20, 20])
    counts = [(np.asarray(contact_sheet(one)) == red).all(axis=2).sum() for one in (right, wrong)]
    assert counts[0] < counts[1] - 1000
    assert contact_sheet(answers(bench[:5], [case.sample.target() for case in bench[:5]])).height > 400

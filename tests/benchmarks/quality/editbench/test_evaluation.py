"""What an evaluation counts."""

import json
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from answered import answers

from kontext_trt import Kontext
from kontext_trt.benchmarks.quality.editbench import evaluation
from kontext_trt.benchmarks.quality.editbench.cases import KINDS, EditCase
from kontext_trt.benchmarks.quality.editbench.evaluation import Evaluation, Row
from kontext_trt.benchmarks.quality.editbench.render import Pixels
from kontext_trt.benchmarks.quality.editbench.roads import Road, Turn
from kontext_trt.benchmarks.quality.editbench.samples import EditSample, draw_sample
from kontext_trt.benchmarks.quality.editbench.scoring import decibels


def test_rows_count_what_succeeded(bench: tuple[EditCase, ...]):
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


@pytest.mark.parametrize("count", [1, 2])
def test_a_part_of_the_cases_edits_nothing_in_a_row(
    bench: tuple[EditCase, ...], monkeypatch: pytest.MonkeyPatch, count: int
):
    """Here two cases are all of them."""
    answered, rows = [], []
    turn = Turn(task="add", untouched_db=30.0, success=1.0)

    def in_a_row(*_: object, **__: object) -> Road:
        rows.append(1)
        return Road(carry="pixels", turns=(turn,), shown=())

    def answer(_: object, sample: EditSample, *__: object) -> Pixels:
        answered.append(sample)
        return sample.target()

    for name, value in {"NUM_CASES": 2, "answer": answer, "edit_in_a_row": in_a_row}.items():
        monkeypatch.setattr(evaluation, name, value)
    monkeypatch.setattr(evaluation, "cases", lambda number: bench[:number])
    monkeypatch.setattr(evaluation, "check_model", lambda _: None)
    kontext = SimpleNamespace(bundle=SimpleNamespace(fingerprint="b"), executor=SimpleNamespace(name="e"))
    made = evaluation.evaluate(cast("Kontext", kontext), count=count, steps=1)
    assert len(answered) == count
    assert (len(rows), made.turns) == ((0, ()) if count == 1 else (1, (turn,)))


def test_psnr_of_rows_is_of_the_mean_error():
    sample = draw_sample(3, task="recolour")
    off = np.clip(sample.target().astype(np.int16) + 10, 0, 255).astype(np.uint8)
    error = np.square(off.astype(float) - sample.target()).mean()
    pair = answers((EditCase(0, "local edit", sample),) * 2, [sample.target(), off])
    row = Row.of("all", pair)
    assert row.success == 1.0
    assert row.inside_db == pytest.approx(decibels(pair[1].score.inside / 2))
    assert 5 < error <= 100

"""The contact sheet of an evaluation."""

import numpy as np
import pytest

from kontext_trt.benchmarks.quality.editbench.cases import EditCase, cases
from kontext_trt.benchmarks.quality.editbench.contact_sheet import contact_sheet
from kontext_trt.benchmarks.quality.editbench.evaluation import Answer
from kontext_trt.benchmarks.quality.editbench.render import Pixels
from kontext_trt.benchmarks.quality.editbench.scoring import score


@pytest.fixture(scope="module")
def bench() -> tuple[EditCase, ...]:
    return cases()


def answers(bench: tuple[EditCase, ...], pictures: list[Pixels]) -> tuple[Answer, ...]:
    return tuple(
        Answer(case, picture, score(case.sample, picture)) for case, picture in zip(bench, pictures, strict=False)
    )


def test_contact_sheet_frames_failures(bench: tuple[EditCase, ...]):
    right = answers(bench[:1], [bench[0].sample.target()])
    reference = bench[0].sample.reference()
    assert reference is not None
    wrong = answers(bench[:1], [reference])
    red = np.array([205, 20, 20])
    counts = [(np.asarray(contact_sheet(one)) == red).all(axis=2).sum() for one in (right, wrong)]
    assert counts[0] < counts[1] - 1000
    assert contact_sheet(answers(bench[:5], [case.sample.target() for case in bench[:5]])).height > 400

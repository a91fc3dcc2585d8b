"""The contact sheet of an evaluation."""

import numpy as np
from answered import answers

from kontext_trt.benchmarks.quality.editbench.cases import EditCase
from kontext_trt.benchmarks.quality.editbench.contact_sheet import contact_sheet


def test_contact_sheet_frames_failures(bench: tuple[EditCase, ...]):
    right = answers(bench[:1], [bench[0].sample.target()])
    reference = bench[0].sample.reference()
    assert reference is not None
    wrong = answers(bench[:1], [reference])
    red = np.array([205, 20, 20])
    counts = [(np.asarray(contact_sheet(one)) == red).all(axis=2).sum() for one in (right, wrong)]
    assert counts[0] < counts[1] - 1000
    assert contact_sheet(answers(bench[:5], [case.sample.target() for case in bench[:5]])).height > 400

"""Answers to EditBench's cases, scored."""

from collections.abc import Sequence

from kontext_trt.benchmarks.quality.editbench.cases import EditCase
from kontext_trt.benchmarks.quality.editbench.evaluation import Answer
from kontext_trt.benchmarks.quality.editbench.render import Pixels
from kontext_trt.benchmarks.quality.editbench.scoring import score


def answers(cases: Sequence[EditCase], pictures: Sequence[Pixels]) -> tuple[Answer, ...]:
    """Return the answers that `pictures` are to the first cases."""
    return tuple(
        Answer(case, picture, score(case.sample, picture)) for case, picture in zip(cases, pictures, strict=False)
    )

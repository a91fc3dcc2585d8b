"""What plans must cover, in words, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from kontext_trt.engine.errors import OptionError
from kontext_trt.engine.plans.coverage import Coverage, Task
from kontext_trt.engine.sizes import TRAINED_SIZES

ALL = Coverage(sizes=TRAINED_SIZES)
SQUARE = Coverage(sizes=((1024, 1024),), tasks=(Task.EDIT,), batch=2, max_steps=28)


def test_the_range_is_told_in_words() -> None:
    assert ALL.describe() == (
        "17 sizes, 672x1568 to 1568x672, best at 1024x1024; edit and generate; batch 1; up to 50 steps"
    )
    assert SQUARE.describe() == "1024x1024; edit; batch 1 to 2; up to 28 steps"
    several = Coverage(sizes=((1024, 1024),), references=3)
    assert several.describe() == "1024x1024; edit and generate; batch 1; up to 50 steps; up to 3 references"


def test_the_common_size_is_the_squarest() -> None:
    assert ALL.common == (1024, 1024)
    assert Coverage(sizes=((832, 1248), (944, 1104))).common == (944, 1104)
    assert Coverage(sizes=((512, 512), (1024, 1024))).common == (1024, 1024)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": ()}, "at least one size"),
        ({"sizes": ((1000, 1024),)}, "size 1000x1024 is not possible: both sides must be positive multiples of 16"),
        ({"sizes": ((1024, 0),)}, "size 1024x0"),
        ({"sizes": ((1024, 1024),), "batch": 0}, "batch must be at least 1, not 0"),
        ({"sizes": ((1024, 1024),), "max_steps": 0}, "max_steps must be at least 1"),
        ({"sizes": ((1024, 1024),), "references": 0}, "references must be at least 1, not 0"),
        ({"sizes": ((1024, 1024),), "tasks": ()}, "one task"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Coverage(**fields)


def test_the_same_coverage_has_one_form() -> None:
    wide = Coverage(sizes=((1568, 672), (1024, 1024), (672, 1568), (1024, 1024)), tasks=(Task.GENERATE, Task.EDIT))
    assert wide == Coverage(sizes=((672, 1568), (1024, 1024), (1568, 672)))
    assert wide.sizes == ((672, 1568), (1024, 1024), (1568, 672))


def test_what_contains_what() -> None:
    assert ALL.contains(Coverage(sizes=((1024, 1024),), tasks=(Task.EDIT,), max_steps=28))
    assert not ALL.contains(SQUARE)  # batch 2
    assert not SQUARE.contains(Coverage(sizes=((1024, 1024),), max_steps=1))  # generate, too
    assert not ALL.contains(Coverage(sizes=((512, 512),)))
    assert not ALL.contains(Coverage(sizes=TRAINED_SIZES, max_steps=51))
    several = Coverage(sizes=TRAINED_SIZES, references=2)
    assert several.contains(ALL)
    assert not ALL.contains(several)

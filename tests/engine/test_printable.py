"""Words for a terminal."""

import pytest

from kontext_trt.engine.printable import counted


@pytest.mark.parametrize(("number", "words"), [(0, "0 plans"), (1, "1 plan"), (2, "2 plans"), (2048, "2,048 plans")])
def test_a_noun_has_an_s_beside_any_number_but_one(number: int, words: str) -> None:
    assert counted(number, "plan") == words

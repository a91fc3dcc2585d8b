"""Which noise levels and solvers a request may name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kontext_trt import Request, RequestError, Sampling, Solver
from kontext_trt.runtime.inputs.schedules import check_sigmas, check_step_mask, parse_sigmas, parse_step_mask


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([1, 0.5], (1.0, 0.5)),
        ([1, 0.5, 0], (1.0, 0.5)),
        (np.array([1, 0.25, 0], np.float32), (1.0, 0.25)),
        ((0.5,), (0.5,)),
        ([1 - 1e-7 * step for step in range(1, 3)], (1 - 1e-7, 1 - 2e-7)),
    ],
)
def test_levels_are_kept_without_the_zero_at_the_end(given: Any, kept: tuple[float, ...]) -> None:
    assert check_sigmas(given) == kept
    assert all(type(level) is float for level in check_sigmas(given))
    assert parse_sigmas(",".join(map(str, given))) == kept


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("1,0.5", "sigmas must be a list of numbers that fall from 1 towards 0, not '1,0.5'"),
        ([1, True], "sigmas must be a list of numbers"),
        (0.5, "sigmas must be a list of numbers"),
        (np.ones((2, 2)), "sigmas must be a list of numbers"),
        ([], "sigmas must be 1 to 1000 noise levels above 0, not 0"),
        ([0], "sigmas must be 1 to 1000 noise levels above 0, not 0"),
        (np.linspace(1, 0.1, 1001), "sigmas must be 1 to 1000 noise levels above 0, not 1001"),
        ([1.5, 1], r"each of sigmas must be above 0, up to 1, not 1\.5; a 0 may be the last"),
        ([1, 0, 0], "each of sigmas must be above 0, up to 1, not 0.0"),
        ([1, 1e-60], "each of sigmas must be above 0, up to 1, not 1e-60"),
        ([1, float("nan")], "each of sigmas must be above 0, up to 1, not nan"),
        ([1, 0.5, 0.5], r"sigmas must fall, as float32: 0\.5 comes after 0\.5"),
        ([0.5, 1], r"sigmas must fall, as float32: 1\.0 comes after 0\.5"),
        ([1, 1 - 1e-9], r"sigmas must fall, as float32: 0\.999999999 comes after 1\.0"),
    ],
)
def test_other_levels_are_refused(given: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Sampling(sigmas=given)


def test_text_that_is_no_list_is_refused() -> None:
    with pytest.raises(RequestError, match=r"sigmas are numbers with commas between, such as 1,0\.9,0\.6, not '1;2'"):
        parse_sigmas("1;2")


def test_solvers_go_by_name() -> None:
    assert Sampling().solver is Solver.EULER
    assert Sampling(solver="ab2").solver is Solver.AB2
    with pytest.raises(RequestError, match="solver must be one of euler, ab2, not 'heun'"):
        Sampling(solver="heun")


def test_what_is_said_twice_has_to_agree() -> None:
    assert Sampling(sigmas=[1, 0.5], steps=2).sigmas == (1.0, 0.5)
    with pytest.raises(RequestError, match="2 sigmas make 2 steps, not 3; leave the steps out"):
        Sampling(sigmas=[1, 0.5], steps=3)
    with pytest.raises(RequestError, match="sigmas say by their first where the flow begins, so there is no strength"):
        Sampling(sigmas=[1, 0.5], strength=0.5)


def test_a_late_beginning_needs_a_picture() -> None:
    with pytest.raises(RequestError, match="a list of sigmas that begins below 1 is about a picture that is edited"):
        Request(prompt="x", sampling=Sampling(sigmas=[0.9, 0.5]))


def test_masks_are_kept_as_bools() -> None:
    for given in ((1, 0, 1), [True, False, True], np.array([1, 0, 1]), np.array([True, False, True])):
        assert check_step_mask(given) == (True, False, True)
    assert parse_step_mask("1,0,1") == (True, False, True)
    assert Sampling(step_mask=[1, 1]).features == ()
    assert Sampling(step_mask=[1, 0], solver="ab2").features == ("velocity", "step_cache")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("1,0", "step_mask must be a list with 1 of each whole step and 0 of each cached, not '1,0'"),
        ([1, 2], "step_mask must be a list"),
        ([1, 0.5], "step_mask must be a list"),
        (1, "step_mask must be a list"),
        ([], "step_mask must be of 1 to 1000 steps, not 0"),
        ([1] * 1001, "step_mask must be of 1 to 1000 steps, not 1001"),
        ([0, 1], "the first step of step_mask must be 1: no step before it has left anything to take"),
    ],
)
def test_other_masks_are_refused(given: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Sampling(step_mask=given)


def test_text_that_is_no_mask_is_refused() -> None:
    with pytest.raises(RequestError, match="step_mask is of 1 and 0 with commas between, such as 1,0,1,0, not '1;0'"):
        parse_step_mask("1;0")

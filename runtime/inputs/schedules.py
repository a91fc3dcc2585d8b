"""Defines how the flow is solved: by which method, and at which noise levels."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np

from ...engine.errors import RequestError

MAX_STEPS = 1000
"""The most steps of a request: as many as there were noise levels in training."""


class Solver(str, Enum):
    """Names a method of solving the flow's equation, which takes one velocity of the model per step.

    Attributes:
        EULER: The step goes along its velocity: first order.
        AB2: Adams and Bashforth's method of two steps, for steps of any sizes: the velocity is carried on along a line
            through this one and the one before. Second order; its first step is Euler's.
    """

    EULER = "euler"
    AB2 = "ab2"


def check_sigmas(values: Any) -> tuple[float, ...]:
    """Return the noise levels of a schedule, one per step, as Python's numbers; a 0 at the end is left out.

    Args:
        values: A list, tuple or array of numbers, which fall from at most 1 to above 0; the last may be 0.

    Raises:
        RequestError: They are no numbers, too many or none, out of range, or one is not below the one before, as
            float32.
    """
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)) or not all(map(_is_number, values)):
        raise RequestError(f"sigmas must be a list of numbers that fall from 1 towards 0, not {values!r}")
    levels = tuple(map(float, values))
    levels = levels[:-1] if levels and levels[-1] == 0 else levels
    if not 1 <= len(levels) <= MAX_STEPS:
        raise RequestError(f"sigmas must be 1 to {MAX_STEPS} noise levels above 0, not {len(levels)}")
    computed = np.array(levels, np.float32)
    for level, single in zip(levels, computed, strict=True):
        if not (0 < level <= 1 and single > 0):
            raise RequestError(f"each of sigmas must be above 0, up to 1, not {level!r}; a 0 may be the last")
    for (before, after), falls in zip(pairwise(levels), computed[1:] < computed[:-1], strict=True):
        if not falls:
            raise RequestError(f"sigmas must fall, as float32: {after!r} comes after {before!r}")
    return levels


def parse_sigmas(text: str) -> tuple[float, ...]:
    """Return the noise levels that text lists, with commas between. Raises RequestError as `check_sigmas` does."""
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"sigmas are numbers with commas between, such as 1,0.9,0.6, not {text!r}") from None
    return check_sigmas(levels)


def check_step_mask(values: Any) -> tuple[bool, ...]:
    """Return which steps are whole; the others are cached.

    Args:
        values: A list, tuple or array with 1 or True of each step that is whole, 0 or False of each that is cached.

    Raises:
        RequestError: There are other values, too many or none, or the first step is cached: there is nothing to take.
    """
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if (
        not isinstance(values, Sequence)
        or isinstance(values, (str, bytes))
        or any(not isinstance(value, numbers.Integral) or value not in (0, 1) for value in values)
    ):
        raise RequestError(f"step_mask must be a list with 1 of each whole step and 0 of each cached, not {values!r}")
    if not 1 <= len(values) <= MAX_STEPS:
        raise RequestError(f"step_mask must be of 1 to {MAX_STEPS} steps, not {len(values)}")
    if not values[0]:
        raise RequestError("the first step of step_mask must be 1: no step before it has left anything to take")
    return tuple(map(bool, values))


def parse_step_mask(text: str) -> tuple[bool, ...]:
    """Return the steps that text lists, 1 or 0 with commas between. Raises RequestError as `check_step_mask` does."""
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"step_mask is of 1 and 0 with commas between, such as 1,0,1,0, not {text!r}") from None
    return check_step_mask(steps)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)

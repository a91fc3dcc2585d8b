"""Shows what becomes of a request while its steps are taken: where a straight line from here would end, decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.errors import RequestError
from ..inputs.request import is_whole

MAX_PREVIEWS = 100
"""The most previews of a request: each is decoded as the result is."""

Show = Callable[[int, Any], None]
"""A function that is called with the number of a preview, from 0 on, and its pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Previews:
    """Asks for pictures of what a request is going to be, spread evenly over its steps.

    Each costs what decoding the result costs. What is made does not change.

    Attributes:
        count: How many, 1 to 100; a request of few steps has one per step but the last at most.
        show: A function that is called in the request's thread with the number of the preview, from 0 on, and a tuple
            of pictures, one per picture of the request, in its order.

    Raises:
        RequestError: The count is out of range.
    """

    count: int
    show: Show

    def __post_init__(self) -> None:
        if not is_whole(self.count) or not 1 <= self.count <= MAX_PREVIEWS:
            raise RequestError(f"previews must be a whole number from 1 to {MAX_PREVIEWS}, not {self.count!r}")


def preview_steps(count: int, steps: int) -> tuple[int, ...]:
    """Return after which steps, counted from 1, the previews come: evenly, never after the last."""
    evenly = (round(steps * number / (count + 1)) for number in range(1, count + 1))
    return tuple(sorted({min(max(step, 1), steps - 1) for step in evenly} - {0}))


def straight_on(
    before: NDArray[np.float32], after: NDArray[np.float32], step_sizes: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return where the flow would end if it went on as in its last step: the picture that the model expects.

    It is x - sigma v of the model's velocity v, since all steps that are left add up to -sigma.

    Args:
        before: The latents that the last step began with.
        after: The latents that it ended with.
        step_sizes: The sizes of that step and of all that follow, each a change of sigma.
    """
    left = np.asarray(step_sizes[1:].sum() / step_sizes[0], np.float32)
    return (after + (after - before) * left).astype(np.float32, copy=False)

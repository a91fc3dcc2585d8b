"""A request, checked."""

from __future__ import annotations

import numbers
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.manifest import ModelRecord
from ...engine.errors import RequestError
from ...engine.sizes import Grid, Size, check_size, token_grid
from .placement import Placement
from .prompts import check_prompt

MAX_SEED = 2**64 - 1
MAX_STEPS = 1000
"""As many as there were noise levels in training."""
MAX_PICTURES = 1000
"""Of one request, whose noise and tables are made before its first step."""
MAX_GUIDANCE = 1000
"""Far beyond what a model was trained with, and far from where float32 overflows in its embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference brought to its size: `pixels` (H, W, 3) uint8."""

    pixels: NDArray[np.uint8]
    placement: Placement

    @property
    def grid(self) -> Grid:
        return token_grid(self.placement.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One edit or generation of every combination of prompts and seeds. Raises RequestError for what is out of range.

    NumPy's numbers are kept as Python's, so that a request can be written down. `noise` (b, n, channels) float32
    replaces what the seeds would draw.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size
    steps: int
    guidance: float
    reference: Reference | None
    channels: int
    noise: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not self.prompts or not self.seeds:
            raise RequestError(
                f"a request needs a prompt and a seed at least, not {len(self.prompts)} and {len(self.seeds)}"
            )
        _check_count(len(self.prompts) * len(self.seeds))
        for prompt in self.prompts:
            check_prompt(prompt)
        for seed in self.seeds:
            if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
                raise RequestError(f"a seed must be a whole number from 0 to 2^64 - 1, not {seed!r}")
        if not is_whole(self.steps) or not 1 <= self.steps <= MAX_STEPS:
            raise RequestError(f"steps must be a whole number from 1 to {MAX_STEPS}, not {self.steps!r}")
        if not isinstance(self.guidance, numbers.Real) or not 0 <= self.guidance <= MAX_GUIDANCE:
            raise RequestError(f"guidance must be a number from 0 to {MAX_GUIDANCE}, not {self.guidance!r}")
        object.__setattr__(self, "seeds", tuple(map(int, self.seeds)))
        object.__setattr__(self, "steps", int(self.steps))
        object.__setattr__(self, "guidance", float(self.guidance))
        object.__setattr__(self, "size", check_size(self.size))
        if self.noise is not None and (not isinstance(self.noise, np.ndarray) or self.noise.dtype.kind not in "fiu"):
            found = getattr(self.noise, "dtype", type(self.noise).__name__)
            raise RequestError(f"noise must be a NumPy array of float32, not {found}")
        height, width = self.grid
        wanted = (len(self.jobs), height * width, self.channels)
        if self.noise is not None and self.noise.shape != wanted:
            raise RequestError(f"noise must be of shape {wanted}, this is {self.noise.shape}")

    @property
    def jobs(self) -> tuple[tuple[str, int], ...]:
        """(prompt, seed) of each picture, prompts outermost."""
        return tuple((prompt, seed) for prompt in self.prompts for seed in self.seeds)

    @property
    def grid(self) -> Grid:
        return token_grid(self.size)


def _check_count(pictures: int) -> None:
    if pictures > MAX_PICTURES:
        raise RequestError(f"a request makes up to {MAX_PICTURES} pictures, not {pictures:,}; ask for them in several")


def is_whole(value: object) -> bool:
    """A whole number of Python's or NumPy's, not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _each(values: Any) -> tuple[Any, ...]:
    """Of a sequence or an array, its values, counted before they are made; else the one value."""
    if isinstance(values, np.ndarray):
        values = np.atleast_1d(values)
    elif isinstance(values, str) or not isinstance(values, Sequence):
        return (values,)
    _check_count(len(values))
    return tuple(values)


def make_request(
    model: ModelRecord,
    prompt: str | Sequence[str],
    *,
    seed: int | Sequence[int] | None,
    steps: int | None,
    guidance: float | None,
    size: Size,
    reference: Reference | None,
    noise: NDArray[np.float32] | None,
) -> Request:
    """Fill in the bundle's defaults, and draw a seed if none is given."""
    seeds = secrets.randbits(32) if seed is None else seed
    return Request(
        prompts=_each(prompt),
        seeds=_each(seeds),
        size=size,
        steps=model.flow.steps if steps is None else steps,
        guidance=model.flow.guidance if guidance is None else guidance,
        reference=reference,
        channels=model.dims.channels,
        noise=noise,
    )

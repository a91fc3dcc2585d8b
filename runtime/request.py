"""A request, checked."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import RequestError
from ..engine.manifest import FlowRecord
from ..engine.sizes import Grid, Size, check_size, token_grid
from .prompts import check_prompt
from .sizes import Placement

MAX_SEED = 2**64 - 1


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

    `noise` (b, n, channels) float32 replaces what the seeds would draw.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    size: Size
    steps: int
    guidance: float
    reference: Reference | None
    noise: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not self.prompts or not self.seeds:
            raise RequestError(
                f"a request needs a prompt and a seed at least, not {len(self.prompts)} and {len(self.seeds)}"
            )
        for prompt in self.prompts:
            check_prompt(prompt)
        for seed in self.seeds:
            if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
                raise RequestError(f"a seed must be a whole number from 0 to 2^64 - 1, not {seed!r}")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise RequestError(f"steps must be a whole number of at least 1, not {self.steps!r}")
        if not math.isfinite(self.guidance) or self.guidance < 0:
            raise RequestError(f"guidance must be a number of at least 0, not {self.guidance}")
        check_size(self.size)
        height, width = self.grid
        if self.noise is not None and self.noise.shape[:2] != (len(self.jobs), height * width):
            raise RequestError(
                f"noise of {len(self.jobs)} pictures of {height * width} tokens is needed, this is {self.noise.shape}"
            )

    @property
    def jobs(self) -> tuple[tuple[str, int], ...]:
        """(prompt, seed) of each picture, prompts outermost."""
        return tuple((prompt, seed) for prompt in self.prompts for seed in self.seeds)

    @property
    def grid(self) -> Grid:
        return token_grid(self.size)


def make_request(
    flow: FlowRecord,
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
        prompts=(prompt,) if isinstance(prompt, str) else tuple(prompt),
        seeds=(seeds,) if isinstance(seeds, int) else tuple(seeds),
        size=size,
        steps=flow.steps if steps is None else steps,
        guidance=flow.guidance if guidance is None else float(guidance),
        reference=reference,
        noise=noise,
    )

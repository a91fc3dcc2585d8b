"""Chooses a schedule for a bundle: the noise levels, solver and cached steps that lose least on requests of its own.

Candidates are all numbers of steps that fit the cost, with the model's own levels or those of another shift, both
solvers, and where steps can be cached as many whole ones as fit, spread evenly. Each round answers more requests with
half as many candidates, until one is left: the one nearest to what many whole steps of second order end at.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.bundle import Bundle
from ...engine.components import CACHED_DENOISER, DENOISER, STEP_CACHE
from ...engine.errors import RequestError
from ...engine.progress import Progress, Silent
from ...engine.sizes import squarest, token_grid
from ...runtime.flow.schedule import noise_levels
from ...runtime.inputs.request import Request, Sampling
from ...runtime.inputs.schedule_file import Schedule
from ...runtime.inputs.schedules import Solver
from ...runtime.kontext import Kontext
from .metrics import decibels

SHIFTS = (-0.6, -0.3, 0.0, 0.3, 0.6)
"""The numbers that are added to the model's own shift of noise levels."""
REFERENCE_STEPS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Describes steps that may be chosen; `cost` is in whole steps."""

    solver: Solver
    sigmas: tuple[float, ...]
    step_mask: tuple[bool, ...] | None
    cost: float

    def sampling(self, seed: int) -> Sampling:
        return Sampling(seed=seed, solver=self.solver, sigmas=self.sigmas, step_mask=self.step_mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoosingOptions:
    """Holds the options of a choice.

    Attributes:
        share: The cost that is allowed, as a share of `of_steps` whole steps.
        of_steps: The whole steps that are to be stood for; None for the bundle's own number.
        reference_steps: The steps of the flow that answers are compared with.
        seed: The seed of the first request's noise; the next have the next.
    """

    share: float
    of_steps: int | None = None
    reference_steps: int = REFERENCE_STEPS
    seed: int = 0


def cached_cost(bundle: Bundle) -> float | None:
    """Return what a cached step costs in whole ones, by the parameters that it multiplies with; None without any."""
    if STEP_CACHE not in bundle.manifest.features:
        return None
    return bundle.graph(CACHED_DENOISER).num_parameters / bundle.graph(DENOISER).num_parameters


def spread(whole: int, steps: int) -> tuple[bool, ...]:
    """Return a mask with so many whole steps, as even as can be, the first among them."""
    return tuple(step * whole // steps != (step - 1) * whole // steps for step in range(steps))


def shifted(levels: NDArray[np.float32], shift: float) -> tuple[float, ...]:
    """Return noise levels whose shift is greater by so much, without the 0 at the end."""
    wide = levels[:-1].astype(np.float64)
    factor = math.exp(shift)
    return tuple(float(level) for level in factor * wide / (1 + (factor - 1) * wide))


def candidates(bundle: Bundle, budget: float) -> list[Candidate]:
    """Return what fits a budget of whole steps, for pictures of the bundle's squarest size."""
    model, cached = bundle.manifest.model, cached_cost(bundle)
    tokens = prod(token_grid(squarest(model.sizes)))
    most = int(budget) if cached is None else int((budget - 1) / cached) + 1
    found: list[Candidate] = []
    for steps in range(1, min(most, 2 * model.flow.steps) + 1):
        whole = steps if cached is None else min(steps, int((budget - steps * cached) / (1 - cached) + 1e-9))
        if whole < max(1, steps / 4):
            continue
        mask = None if whole == steps else spread(whole, steps)
        cost = whole + (steps - whole) * (cached or 0)
        if cost < budget - 1.5 and mask is None:  # one more whole step fits, and is a candidate of its own
            continue
        levels = noise_levels(steps, tokens, model.flow)
        found += [
            Candidate(solver=solver, sigmas=shifted(levels, shift), step_mask=mask, cost=cost)
            for solver in Solver
            for shift in (SHIFTS if steps > 1 else (0.0,))
        ]
    return found


@dataclass(slots=True)
class _Loss:
    """Adds up the energies of latents and of errors."""

    energies: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def add(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        wide = wanted.astype(np.float64)
        self.energies += (float(np.sum(wide**2)), float(np.sum((wide - found) ** 2)))

    @property
    def db(self) -> float:
        return min(decibels(*self.energies), 999.0)


def choose_schedule(
    kontext: Kontext, requests: Sequence[Request], options: ChoosingOptions, progress: Progress | None = None
) -> Schedule:
    """Choose a schedule by requests, whose own sampling is not looked at.

    Raises:
        RequestError: The share is not above 0, up to 1, less than one step fits it, or there is no request.
        KontextError: What `Kontext.run` raises.
    """
    progress, bundle = progress or Silent(), kontext.bundle
    of_steps = options.of_steps or bundle.manifest.model.flow.steps
    if not 0 < options.share <= 1:
        raise RequestError(f"a share of the cost is above 0, up to 1, not {options.share!r}")
    left = candidates(bundle, options.share * of_steps)
    if not left:
        raise RequestError(
            f"{options.share:g} of {of_steps} steps is less than one step; give at least {1 / of_steps:.3g}"
        )
    if not requests:
        raise RequestError("a schedule is chosen by requests, and there is none")
    chooser = _Chooser(kontext, requests, options, progress)
    rounds = max(1, math.ceil(math.log2(len(left))))
    losses: dict[Candidate, _Loss] = {one: _Loss() for one in left}
    done = 0
    for number in range(rounds):
        until = max(done + 1, round(len(requests) * (number + 1) / rounds)) if done < len(requests) else done
        chooser.answer(losses, left, done, min(until, len(requests)))
        done = min(until, len(requests))
        left = sorted(left, key=lambda one: -losses[one].db)[: max(1, math.ceil(len(left) / 2))]
    best = left[0]
    plain = _Loss()
    for index in range(len(requests)):
        plain.add(chooser.wanted(index), chooser.latents(index, Sampling(steps=of_steps, seed=options.seed + index)))
    return Schedule(
        bundle=bundle.fingerprint,
        solver=best.solver,
        sigmas=best.sigmas,
        step_mask=best.step_mask,
        cost=best.cost / of_steps,
        of_steps=of_steps,
        requests=len(requests),
        latents_db=round(losses[best].db, 2),
        of_steps_db=round(plain.db, 2),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


class _Chooser:
    """Answers requests with candidates, and keeps what the flow of many steps ends at."""

    def __init__(
        self, kontext: Kontext, requests: Sequence[Request], options: ChoosingOptions, progress: Progress
    ) -> None:
        self._kontext, self._requests, self._options, self._progress = kontext, requests, options, progress
        self._wanted: dict[int, NDArray[np.float32]] = {}

    def latents(self, index: int, sampling: Sampling) -> NDArray[np.float32]:
        """Return the last latents of a request."""
        made = self._kontext.run(replace(self._requests[index], sampling=sampling))
        return np.stack([output.latents for output in made.outputs])

    def wanted(self, index: int) -> NDArray[np.float32]:
        """Return what the flow of many steps makes of a request."""
        if index not in self._wanted:
            sampling = Sampling(steps=self._options.reference_steps, solver=Solver.AB2, seed=self._options.seed + index)
            self._wanted[index] = self.latents(index, sampling)
        return self._wanted[index]

    def answer(self, losses: dict[Candidate, _Loss], left: Sequence[Candidate], start: int, stop: int) -> None:
        """Add to the losses of those that are left what requests `start` to `stop` lose."""
        self._progress.start(f"{len(left)} schedules", len(left) * (stop - start))
        for index in range(start, stop):
            for one in left:
                losses[one].add(self.wanted(index), self.latents(index, one.sampling(self._options.seed + index)))
                self._progress.advance(1)

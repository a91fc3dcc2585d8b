"""Choosing a schedule: what is tried for a cost, and that the one that loses least is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kontext_trt import Bundle, Request, RequestError
from kontext_trt.benchmarks.quality.choose_schedule import (
    ChoosingOptions,
    candidates,
    choose_schedule,
    shifted,
    spread,
)
from kontext_trt.engine.bundle.manifest import FlowRecord
from kontext_trt.engine.components import CACHED_DENOISER, DENOISER
from kontext_trt.runtime.flow.schedule import noise_levels
from kontext_trt.runtime.inputs.schedules import Solver, check_sigmas, check_step_mask

REQUESTS = [Request(prompt=f"edit {number}") for number in range(5)]


def caching(bundle: Bundle, share: float = 0.1) -> Any:
    """The tiny bundle as one whose cached steps cost a share of the whole ones."""
    graphs = {DENOISER.name: SimpleNamespace(num_parameters=1000), CACHED_DENOISER.name: None}
    graphs[CACHED_DENOISER.name] = SimpleNamespace(num_parameters=int(1000 * share))
    manifest = SimpleNamespace(features=("step_cache",), model=bundle.manifest.model)
    return SimpleNamespace(manifest=manifest, graph=lambda component: graphs[component.name], fingerprint="0" * 64)


@pytest.mark.parametrize(("whole", "steps", "mask"), [(2, 4, "1010"), (3, 4, "1011"), (1, 3, "100"), (4, 4, "1111")])
def test_whole_steps_are_spread_evenly(whole: int, steps: int, mask: str) -> None:
    assert "".join(str(int(one)) for one in spread(whole, steps)) == mask


def test_levels_of_another_shift_are_levels() -> None:
    levels = noise_levels(6, 64, FlowRecord())
    np.testing.assert_allclose(shifted(levels, 0.0), levels[:-1], rtol=1e-6)
    assert check_sigmas(shifted(levels, 0.6)) == shifted(levels, 0.6)
    assert all(more > less for more, less in zip(shifted(levels, 0.6)[1:], levels[1:-1], strict=True))


@pytest.mark.parametrize("budget", [1.0, 2.5, 7.0, 14.0])
def test_what_is_tried_fits_the_cost(bundle: Bundle, budget: float) -> None:
    for one, cached in ((bundle, False), (caching(bundle), True)):
        tried = candidates(one, budget)
        assert tried
        assert len(set(tried)) == len(tried)
        assert all(found.cost <= budget + 1e-9 for found in tried)
        assert all(check_sigmas(found.sigmas) == found.sigmas for found in tried)
        masks = [found.step_mask for found in tried if found.step_mask is not None]
        assert all(check_step_mask(mask) == mask for mask in masks)
        assert bool(masks) == (cached and budget > 1.1)
        assert {found.solver for found in tried} == set(Solver)


class Losing:
    """Stands for a bundle whose steps lose what a formula says: least by one solver, with levels of one shift."""

    def __init__(self, bundle: Any) -> None:
        self.bundle = bundle
        self.asked: list[Request] = []

    def run(self, request: Request) -> Any:
        self.asked.append(request)
        sampling = request.sampling
        error = 0.0
        if sampling.sigmas is not None:
            mask: Sequence[bool] = sampling.step_mask or [True] * len(sampling.sigmas)
            best = shifted(noise_levels(len(mask), 64, FlowRecord()), 0.3)
            off = float(np.abs(np.subtract(sampling.sigmas, best)).max())
            error = 1 / sum(mask) + off + (sampling.solver is Solver.EULER)
        elif sampling.steps == 10:
            error = 0.5
        latents = np.full((4, 64), 1 + error, np.float32)
        return SimpleNamespace(outputs=[SimpleNamespace(latents=latents)])


def test_the_one_that_loses_least_is_chosen(bundle: Bundle) -> None:
    kontext: Any = Losing(caching(bundle))
    made = choose_schedule(kontext, REQUESTS, ChoosingOptions(share=0.5, of_steps=10, reference_steps=40))
    assert (made.solver, made.step_mask, len(made.sigmas)) == (Solver.AB2, None, 5)
    np.testing.assert_allclose(made.sigmas, shifted(noise_levels(5, 64, FlowRecord()), 0.3))
    assert (made.cost, made.of_steps, made.requests) == (0.5, 10, 5)
    assert made.latents_db == pytest.approx(20 * np.log10(5), abs=0.01)
    assert made.of_steps_db == pytest.approx(20 * np.log10(2), abs=0.01)
    finalists = [request for request in kontext.asked if request.prompt == "edit 4" and request.sampling.sigmas]
    assert 1 <= len(finalists) <= 8, "the last requests are for those that are left"
    assert {request.sampling.seed for request in kontext.asked if request.prompt == "edit 4"} == {4}


@pytest.mark.parametrize(
    ("share", "requests", "words"),
    [
        (0.0, REQUESTS, "a share of the cost is above 0, up to 1, not 0.0"),
        (1.5, REQUESTS, "a share of the cost is above 0, up to 1, not 1.5"),
        (0.05, REQUESTS, r"0\.05 of 10 steps is less than one step; give at least 0\.1"),
        (0.5, [], "a schedule is chosen by requests, and there is none"),
    ],
)
def test_what_cannot_be_chosen_is_said(bundle: Bundle, share: float, requests: list[Request], words: str) -> None:
    kontext: Any = Losing(bundle)
    with pytest.raises(RequestError, match=words):
        choose_schedule(kontext, requests, ChoosingOptions(share=share, of_steps=10))

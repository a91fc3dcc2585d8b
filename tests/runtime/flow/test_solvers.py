"""The solvers: coefficients by hand, and the order in which their error falls on flows whose end is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest

from kontext_trt import Bundle, Solver
from kontext_trt.runtime.executors.host_workspace import HostWorkspace
from kontext_trt.runtime.flow.encodings import schedule_inputs
from kontext_trt.runtime.flow.solvers import velocity_weights
from kontext_trt.runtime.flow.stages import Step
from kontext_trt.runtime.flow.tensors import RequestShape, latents_before, request_tensors
from kontext_trt.runtime.inputs.prepared import PreparedRequest

NORMAL = NormalDist()
GRID = (2, 2)
Flow = Callable[[np.ndarray, float], np.ndarray]


def test_weights_by_hand():
    """A step of -0.2 after one of -0.1: 1 + 0.2 / 0.2 of its own and -0.2 / 0.2 of the one before."""
    sizes = np.array([-0.1, -0.2, -0.2, -0.5], np.float32)
    found = velocity_weights(Solver.AB2, sizes)
    np.testing.assert_allclose(found, [[1, 0], [2, -1], [1.5, -0.5], [2.25, -1.25]], rtol=1e-6)
    np.testing.assert_array_equal(velocity_weights(Solver.EULER, sizes), [[1, 0]] * 4)


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    """The velocity where data is normal, of mean and deviation 1.5: E[noise - data | x]."""
    mean, deviation = 1.5, 1.5
    variance = (1 - sigma) ** 2 * deviation**2 + sigma**2
    away = (x - (1 - sigma) * mean) / variance
    return sigma * away - (mean + (1 - sigma) * deviation**2 * away)


def gaussian_end(noise: np.ndarray) -> np.ndarray:
    return 1.5 + 1.5 * noise


def mixture(x: np.ndarray, sigma: float) -> np.ndarray:
    """The velocity where data is one of two normals, at -1 and 1 with deviation 0.5: not linear in x."""
    variance = (1 - sigma) ** 2 * 0.25 + sigma**2
    parts = []
    for mean in (-1, 1):
        away = (x - (1 - sigma) * mean) / variance
        parts.append((sigma * away - (mean + (1 - sigma) * 0.25 * away), np.exp(-away * away * variance / 2)))
    return sum(one * weight for one, weight in parts) / sum(weight for _, weight in parts)


def mixture_end(noise: np.ndarray) -> np.ndarray:
    """In one dimension a flow keeps quantiles: the mixture's at that of the noise, found by halving."""

    def quantile(share: float) -> float:
        low, high = -6.0, 6.0
        for _ in range(60):
            middle = (low + high) / 2
            below = (NORMAL.cdf((middle + 1) / 0.5) + NORMAL.cdf((middle - 1) / 0.5)) / 2
            low, high = (middle, high) if below < share else (low, middle)
        return low

    return np.vectorize(lambda one: quantile(NORMAL.cdf(float(one))))(noise)


def denoise(flow: Flow, component: str, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
    """The denoiser's formulas over an analytic velocity; the step's sigma is the next one less its size."""
    sigma = float(inputs["next_sigma"][0] - inputs["step_size"][0])
    outputs["velocity"][...] = flow(inputs["latents"].astype(np.float64), sigma)
    own, before = inputs["velocity_weights"]
    along = own * outputs["velocity"] + before * inputs["previous_velocity"]
    outputs["next_latents"][...] = inputs["latents"] + inputs["step_size"] * along


@pytest.mark.parametrize(("solver", "order"), [(Solver.EULER, 1), (Solver.AB2, 2)])
@pytest.mark.parametrize(("flow", "end"), [(gaussian, gaussian_end), (mixture, mixture_end)])
def test_the_error_falls_in_the_solver_s_order(
    bundle: Bundle, flow: Flow, end: Callable, solver: Solver, order: int
) -> None:
    """By the flow's own stages and tables, at the model's own noise levels; a fit over 24 to 96 steps."""
    counts, errors = (24, 34, 48, 68, 96), []
    for steps in counts:
        shape = RequestShape(num_prompts=1, num_seeds=1, grid=GRID, references=(), num_steps=steps)
        request = PreparedRequest(prompts=("x",), seeds=(0,), size=(32, 32), steps=steps, guidance=1, solver=solver)
        workspace = HostWorkspace(shape, request_tensors(bundle, shape), partial(denoise, flow))
        noise = np.random.default_rng(1).standard_normal(workspace["latents_even"].shape).astype(np.float32)
        for name, values in {**schedule_inputs(bundle, shape, request), "latents_even": noise}.items():
            workspace[name][...] = values
        for step in range(steps):
            Step(step).run(workspace)
        errors.append(float(np.sqrt(np.mean((workspace[latents_before(steps)] - end(noise)) ** 2))))
    assert all(after < before for before, after in pairwise(errors))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.1), errors

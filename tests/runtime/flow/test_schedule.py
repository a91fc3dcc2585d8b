"""The noise levels against numbers worked out by hand, and against diffusers."""

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

from kontext_trt.engine.bundle.manifest import FlowRecord
from kontext_trt.runtime.flow.schedule import noise_levels, shift_for

FLOW = FlowRecord()


def test_shift_by_hand():
    assert shift_for(256, FLOW) == pytest.approx(0.5)
    assert shift_for(4096, FLOW) == pytest.approx(1.15)
    assert shift_for(8192, FLOW) == pytest.approx(1.8433333)  # what counting the reference would wrongly give


def test_noise_levels_by_hand():
    """e^1.15 = 3.158193: 1, 3.158193 / (3.158193 + 1/3), / (3.158193 + 1), / (3.158193 + 3), 0."""
    np.testing.assert_allclose(noise_levels(4, 4096, FLOW), [1, 0.9045310, 0.7595114, 0.5128440, 0], atol=1e-6)
    np.testing.assert_array_equal(noise_levels(1, 4096, FLOW), [1, 0])


@pytest.mark.parametrize("steps", [1, 4, 28, 50])
@pytest.mark.parametrize("tokens", [256, 4042, 4096, 4150])
def test_noise_levels_are_diffusers(steps: int, tokens: int):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    np.testing.assert_allclose(noise_levels(steps, tokens, FLOW), scheduler.sigmas.numpy(), atol=1e-7)

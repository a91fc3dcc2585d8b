"""Computes the noise levels of a request.

Source: diffusers `FlowMatchEulerDiscreteScheduler` and `calculate_shift`; BFL `src/flux/sampling.py` `get_schedule`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...engine.bundle.manifest import FlowRecord
from ..inputs.prepared import PreparedRequest


def shift_for(num_tokens: int, flow: FlowRecord) -> float:
    """Return mu, on the line through (256 tokens, 0.5) and (4096 tokens, 1.15). Only target tokens count."""
    slope = (flow.max_shift - flow.base_shift) / (flow.max_tokens - flow.base_tokens)
    return flow.base_shift + slope * (num_tokens - flow.base_tokens)


def noise_levels(num_steps: int, num_tokens: int, flow: FlowRecord) -> NDArray[np.float32]:
    """Return sigmas (num_steps + 1,), from 1 down to 0: linspace(1, 1/N, N) shifted towards noise, then 0."""
    sigmas = np.linspace(1.0, 1.0 / num_steps, num_steps)
    strength = math.exp(shift_for(num_tokens, flow))
    shifted = strength / (strength + (1.0 / sigmas - 1.0))
    return np.append(shifted, 0.0).astype(np.float32)


def request_levels(request: PreparedRequest, flow: FlowRecord) -> NDArray[np.float32]:
    """Return the sigmas (num_steps + 1,) of a request, 0 at the end: its own, or the last ones of the model's."""
    if request.sigmas is not None:
        return np.array([*request.sigmas, 0], np.float32)
    return noise_levels(request.steps, math.prod(request.grid), flow)[-1 - request.num_steps :]

"""Computes what each step's velocity and the one before count in the flow's update: the solver, as numbers.

Source: the Adams-Bashforth methods, with the coefficients for steps of different sizes (Hairer, Norsett, Wanner,
"Solving Ordinary Differential Equations I", III.5).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..inputs.schedules import Solver


def velocity_weights(solver: Solver, step_sizes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weights (N, 2) float32 of the velocities of each of N steps: its own, and that of the step before.

    A step of size h after one of size k goes along (1 + h / 2k) v - (h / 2k) u with `Solver.AB2`, for its own velocity
    v and that before, u: what a line through both gives in the middle of the step. The first step has none before it.

    Args:
        solver: The method.
        step_sizes: The changes of sigma (N,).
    """
    half = np.zeros(len(step_sizes))
    if solver is Solver.AB2:
        sizes = step_sizes.astype(np.float64)
        half[1:] = sizes[1:] / sizes[:-1] / 2
    return np.stack([1 + half, -half], axis=1).astype(np.float32)

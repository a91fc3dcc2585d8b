"""The flow loop: from noise to latents, one denoiser call a step.

Whoever runs the components, this is the one loop: executors of every kind and calibration are driven by it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import Cancelled, NotFiniteError
from .executor import Executor, Value, nonfinite_count

OnStep = Callable[[int, int], None]
"""Called after each step with the number of steps done and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Everything that the latents of one request depend on, b pictures of n tokens at once.

    `pooled` (b, pooled), `text` (b, 512, text) and `reference` (b, m, channels), m = 0 without one; `guidance` (b,);
    `sigmas` (N + 1,); `cos`, `sin` (512 + n + m, head / 2); all float32.
    """

    pooled: NDArray[np.float32]
    text: NDArray[np.float32]
    reference: NDArray[np.float32]
    guidance: NDArray[np.float32]
    sigmas: NDArray[np.float32]
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1


def condition(executor: Executor, conditions: Conditions) -> dict[str, Value]:
    """Run what all steps share."""
    return executor.run(
        "conditioner",
        {
            "timesteps": conditions.sigmas[:-1],
            "guidance": conditions.guidance,
            "pooled": conditions.pooled,
            "text": conditions.text,
            "reference": conditions.reference,
        },
    )


def denoise(
    executor: Executor,
    conditions: Conditions,
    conditioned: Mapping[str, Value],
    noise: NDArray[np.float32],
    *,
    on_step: OnStep | None = None,
    cancel: threading.Event | None = None,
) -> NDArray[np.float32]:
    """Integrate from `noise` (b, n, channels) float32 to latents of the same shape.

    Raises Cancelled if `cancel` is set between two steps, NotFiniteError if the first or last latents are not finite.
    """
    latents: Value | NDArray[Any] = noise
    for step in range(conditions.num_steps):
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"cancelled after step {step} of {conditions.num_steps}")
        outputs = executor.run(
            "denoiser",
            {
                "latents": latents,
                "text_tokens": conditioned["text_tokens"],
                "reference_tokens": conditioned["reference_tokens"],
                "modulation": executor.row(conditioned["modulation"], step),
                "cos": conditions.cos,
                "sin": conditions.sin,
                "step_size": conditions.sigmas[step + 1 : step + 2] - conditions.sigmas[step : step + 1],
            },
        )
        latents = outputs["next_latents"]
        if step == 0:
            require_finite(executor.fetch(latents), f"denoiser, step 1 of {conditions.num_steps}")
        if on_step is not None:
            on_step(step + 1, conditions.num_steps)
    result = executor.fetch(latents)
    require_finite(result, f"denoiser, step {conditions.num_steps} of {conditions.num_steps}")
    return result


def require_finite(array: NDArray[np.float32], where: str) -> None:
    """Raise NotFiniteError, naming where, if a value is NaN or infinite."""
    count = nonfinite_count(array)
    if count:
        raise NotFiniteError(
            f"{where}: {count:,} of {array.size:,} values are NaN or infinite; a graph in bf16 or fp32 instead of fp16 "
            "usually cures this"
        )

"""Holds what a training is told, and how its learning rate runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

WARM_UP = 0.02
"""The part of a stage in which the learning rate rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Holds the options of one training, which `train.py` explains.

    `chunk` is the samples that a worker draws at once, `pictures` and `latents` how many samples are kept on the device
    in the first and second stage, `per_task` the validation's.
    """

    minutes: float
    vae_share: float = 0.33
    batch: int = 256
    vae_batch: int = 64
    learning_rate: float = 1e-3
    vae_learning_rate: float = 5e-4
    workers: int = 14
    device: str = "cuda"
    seed: int = 0
    compile: bool = True
    smoke: bool = False
    chunk: int = 128
    pictures: int = 160_000
    latents: int = 400_000
    per_task: int = 24

    def __post_init__(self) -> None:
        if self.minutes <= 0 or not 0 < self.vae_share < 1 or min(self.batch, self.vae_batch, self.chunk) < 1:
            raise ValueError("a training needs time, a share for each stage, and batches of at least one sample")

    def scaled(self) -> Options:
        """Return the options as they are used: smoke tests are small."""
        if not self.smoke:
            return self
        return replace(
            self, batch=8, vae_batch=4, workers=0, chunk=8, pictures=64, latents=256, per_task=1, compile=False
        )


def learning_rate(share: float, resumed: int) -> float:
    """Return the part of the peak after `share` of a stage: a short rise, then a cosine to 2 %."""
    rise = 1.0 if resumed else min(share / WARM_UP, 1.0)
    return max(rise, 0.01) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

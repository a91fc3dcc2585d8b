"""Compares two engines' pictures of one request before any of their speeds is quoted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .records import Agreement

LEAST_PSNR_DB = 30.0
LEAST_SNR_DB = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Holds PSNR of 8-bit RGB, and the picture's own variance over the error's power, 200 dB each for equal pictures.

    They agree from 30 dB on: an error of 8 of 255, which nobody sees beside the original. Two engines round bf16 in
    different places, and every step carries that on; the tiny model's pictures on GPU and CPU are at 48 dB, a deeper
    one's less. A picture with little contrast is near to any other like it, so the error's power must also be at most a
    tenth of the picture's own variance (10 dB): unrelated pictures of equal contrast are at -3 dB. No figure is more
    than 200 dB.
    """

    psnr_db: float
    snr_db: float

    @property
    def agree(self) -> bool:
        return self.psnr_db >= LEAST_PSNR_DB and self.snr_db >= LEAST_SNR_DB

    def describe(self) -> str:
        return f"PSNR {self.psnr_db:.1f} dB, SNR {self.snr_db:.1f} dB"


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Likeness:
    """Compare two pictures (h, w, 3) of one size."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    error = float(np.mean((first - second) ** 2))
    return Likeness(psnr_db=_decibels(255.0**2, error), snr_db=_decibels(float(first.var(axis=(0, 1)).mean()), error))


def agreement(one: Path, other: Path, names: tuple[str, str]) -> Agreement:
    """Compare two pictures from files, named as in `names`; raise ValueError if the sizes differ."""
    first, second = (np.asarray(Image.open(path).convert("RGB")) for path in (one, other))
    if first.shape != second.shape:
        raise ValueError(f"{names[0]} made {_size(first)}, {names[1]} made {_size(second)}")
    found = likeness(first, second)
    return Agreement(one=names[0], other=names[1], psnr_db=found.psnr_db, snr_db=found.snr_db, agree=found.agree)


def _decibels(power: float, error: float) -> float:
    """Return a ratio in dB, at most 200: JSON has no infinity."""
    return min(200.0, 10 * math.log10(max(power, 1e-12) / error)) if error else 200.0


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"

"""How near two engines' pictures of one request are: looked at before any of their speeds is quoted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from .records import Agreement

LEAST_PSNR_DB = 30.0
LEAST_SNR_DB = 10.0


def agreement(one: Path, other: Path, names: tuple[str, str]) -> Agreement:
    """Compare two pictures from files, named as in `names`. PSNR is of 8-bit RGB, 200 dB for equal pictures.

    They agree from 30 dB on: an error of 8 of 255, which nobody sees beside the original. Two engines round bf16 in
    different places, and every step carries that on; the tiny model's pictures on GPU and CPU are at 48 dB, a deeper
    one's less. A picture with little contrast is near to any other like it, so the error's power must also be at
    most a tenth of the picture's own variance (10 dB): unrelated pictures of equal contrast are at -3 dB.
    Raises ValueError if the sizes differ.
    """
    first, second = (np.asarray(Image.open(path).convert("RGB"), np.float64) for path in (one, other))
    if first.shape != second.shape:
        raise ValueError(f"{names[0]} made {_size(first)}, {names[1]} made {_size(second)}")
    error = float(np.mean((first - second) ** 2))
    psnr = _decibels(255.0**2, error)
    snr = _decibels(float(first.var(axis=(0, 1)).mean()), error)
    agree = psnr >= LEAST_PSNR_DB and snr >= LEAST_SNR_DB
    return Agreement(one=names[0], other=names[1], psnr_db=psnr, agree=agree)


def _decibels(power: float, error: float) -> float:
    """At most 200 dB: JSON has no infinity."""
    return min(200.0, 10 * math.log10(max(power, 1e-12) / error)) if error else 200.0


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"

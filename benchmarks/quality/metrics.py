"""Measures how far one array is from another."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10 of a ratio of energies; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def sqnr_db(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the energy of the reference over that of the difference, in dB."""
    wide = reference.astype(np.float64)
    return decibels(float(np.sum(wide**2)), float(np.sum((wide - other) ** 2)))


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the cosine of the angle between two arrays of one shape, taken as vectors."""
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def psnr_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the PSNR of two pictures of 8 bits, in dB: 255 squared over the mean squared difference."""
    return decibels(255.0**2, float(np.mean((one.astype(np.float64) - other) ** 2)))


def ssim(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the structural similarity of two pictures (h, w, c) of 8 bits, the mean over pixels and channels.

    It is 1 for equal ones. The window is a Gaussian of 11 pixels with a deviation of 1.5. Source: Wang et al., Image
    quality assessment (2004).
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return float(np.mean(luminance * structure))


def _blur(x: Array) -> Array:
    """Return the blurred array where the window fits, so edges are left out."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(x, len(window), axis=axis)
        x = windows @ window
    return x

"""Metrics, against numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kontext_trt.benchmarks.quality.metrics import cosine, psnr_db, sqnr_db, ssim


def test_sqnr() -> None:
    x = np.ones(100, np.float32)
    assert sqnr_db(x, x * 0.9) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(x, x) == math.inf
    assert sqnr_db(0 * x, x) == -math.inf


def test_cosine() -> None:
    assert cosine(np.array([1.0, 0]), np.array([1.0, 1.0])) == pytest.approx(math.sqrt(0.5))  # pyright: ignore[reportArgumentType]


def test_psnr() -> None:
    black = np.zeros((20, 20, 3), np.uint8)
    assert psnr_db(black, black + 1) == pytest.approx(20 * math.log10(255))
    assert psnr_db(black, black) == math.inf


def test_ssim() -> None:
    draw = np.random.default_rng(0)
    picture = draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(picture, draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)) < 0.1
    flat = np.full((20, 20, 3), 100, np.uint8)
    luminance = (2 * 100 * 110 + 6.5025) / (100**2 + 110**2 + 6.5025)  # no structure: only this term is left
    assert ssim(flat, flat + 10) == pytest.approx(luminance)

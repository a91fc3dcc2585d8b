"""Packing and noise by hand, and against torch and diffusers."""

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline

from kontext_trt.engine.components import Precision
from kontext_trt.runtime.flow.noise import rounded, standard_normal, starting_noise


def test_packing_by_hand():
    """One 2x2 patch of 16 channels: channel-major, then row, then column."""
    noise = starting_noise(3, (1, 1), 64, Precision.FP32)[0, 0]
    drawn = standard_normal(3, 64).reshape(16, 2, 2)
    assert noise[:5].tolist() == [drawn[0, 0, 0], drawn[0, 0, 1], drawn[0, 1, 0], drawn[0, 1, 1], drawn[1, 0, 0]]


@pytest.mark.parametrize("seed", [0, 7, 123456789, 2**32 + 5, 2**64 - 1])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_noise_is_torchs(seed: int, precision: str, dtype: torch.dtype):
    generator = torch.Generator("cpu").manual_seed(seed if seed < 2**63 else seed - 2**64)
    drawn = torch.randn((1, 16, 12, 20), generator=generator, dtype=dtype)
    packed = FluxKontextPipeline._pack_latents(drawn, 1, 16, 12, 20).float().numpy()
    ours = starting_noise(seed, (6, 10), 64, Precision(precision))
    if precision == "fp32":
        np.testing.assert_allclose(ours, packed, atol=1e-6)
    else:  # equal but for values that rounded to the other side: at most one unit in the last place, and rare
        unit = 2.0**-7 if precision == "bf16" else 2.0**-10
        np.testing.assert_allclose(ours, packed, rtol=unit, atol=1e-6)
        assert np.mean(ours != packed) < 0.002


def test_rounding_to_bfloat16_is_torchs():
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    values[:4] = [1.00390625, 1.01171875, -1.00390625, 0.0]  # ties go to even
    expected = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(rounded(values, Precision.BF16), expected)


def test_noise_wants_whole_blocks():
    with pytest.raises(ValueError, match="multiple of 16"):
        standard_normal(0, 20)

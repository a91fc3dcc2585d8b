"""What previews cost: a map that is linear is found again, and the tokens' order is the VAE's."""

from __future__ import annotations

import numpy as np
from einops import rearrange

from kontext_trt.benchmarks.costs.preview_cost import apply_map, as_picture, fit_map


def test_tokens_unpack_to_where_they_stand():
    """As diffusers packs: channels outermost in a token, then its two rows, then its two columns."""
    latents = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    tokens = rearrange(latents, "(h p) (w q) c -> (h w) (c p q)", p=2, q=2)
    assert np.array_equal(as_picture(tokens, (48, 32)), latents)


def test_a_linear_map_is_found_again():
    draw = np.random.default_rng(0)
    latents = draw.standard_normal((6, 5, 4)).astype(np.float32)
    weights, bias = draw.uniform(-20, 20, (4, 3)), np.array([100.0, 128, 90])
    colours = np.clip(latents @ weights + bias, 0, 255)
    pixels = np.repeat(np.repeat(np.rint(colours).astype(np.uint8), 8, axis=0), 8, axis=1)
    fitted = fit_map([(latents, pixels)])
    made = apply_map(fitted, latents, (5, 6))
    assert np.abs(made.astype(int) - pixels[::8, ::8]).mean() < 3

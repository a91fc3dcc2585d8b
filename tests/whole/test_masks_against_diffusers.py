"""An edit with a mask, before it is pasted, is the picture of diffusers' FluxKontextInpaintPipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextInpaintPipeline
from diffusers.pipelines.flux import pipeline_flux_kontext_inpaint
from PIL import Image
from plain_flow import before_rounding, unpacked

from kontext_trt import Kontext

TOLERANCE = 1e-4  # of 0..1, for a float32 picture; measured: 2.7e-5
STEPS = 4
PROMPTS = ["make it blue", "remove the tree"]


@pytest.fixture(scope="module")
def inpainting(pipeline: Any) -> FluxKontextInpaintPipeline:
    """The same components in diffusers' other pipeline."""
    opened = FluxKontextInpaintPipeline(**pipeline.components)
    opened.set_progress_bar_config(disable=True)
    return opened


def noise_for(size: tuple[int, int], batch: int) -> np.ndarray:
    tokens = size[0] * size[1] // 256
    return np.random.default_rng(size[0] + batch).standard_normal((batch, tokens, 64)).astype(np.float32)


def our_pictures(
    kontext: Kontext, image: Image.Image, mask: np.ndarray, prompts: list[str], noise: np.ndarray, strength: float
) -> np.ndarray:
    result = kontext.edit(
        image, prompts, mask=mask, feather=0, noise=noise, steps=STEPS, guidance=2.5, strength=strength
    )
    return before_rounding(kontext.bundle, result)


def their_pictures(
    pipeline: FluxKontextInpaintPipeline,
    image: Image.Image,
    mask: np.ndarray,
    prompts: list[str],
    noise: np.ndarray,
    strength: float,
) -> np.ndarray:
    """With its own noise replaced: given as `latents`, it would begin with noise alone at every strength."""
    drawn = torch.from_numpy(unpacked(noise, image.size))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(pipeline_flux_kontext_inpaint, "randn_tensor", lambda shape, **_: drawn.reshape(shape))
        return pipeline(
            image=image,
            mask_image=Image.fromarray(mask),
            prompt=prompts,
            strength=strength,
            num_inference_steps=STEPS,
            guidance_scale=2.5,
            output_type="np",
            _auto_resize=False,
        ).images


def aligned(size: tuple[int, int]) -> np.ndarray:
    """Marks two parts whose sides are multiples of 8 px, and of no token."""
    mask = np.zeros(size[::-1], bool)
    mask[8:56, 24:72] = True
    mask[-24:-8, 8:16] = True
    return mask


@pytest.mark.parametrize(
    ("size", "prompts", "strength"),
    [
        ((128, 128), PROMPTS[:1], 1.0),
        ((144, 112), PROMPTS, 0.6),
        *(
            pytest.param(size, PROMPTS, strength, marks=pytest.mark.check)
            for size in ((128, 128), (96, 192), (144, 112))
            for strength in (1.0, 0.6, 0.3)
        ),
    ],
)
def test_a_mask_of_whole_latents(
    kontext: Kontext,
    inpainting: FluxKontextInpaintPipeline,
    picture: Callable,
    size: tuple[int, int],
    prompts: list[str],
    strength: float,
) -> None:
    image, mask, noise = picture(*size), aligned(size), noise_for(size, len(prompts))
    ours = our_pictures(kontext, image, mask, prompts, noise, strength)
    theirs = their_pictures(inpainting, image, mask, prompts, noise, strength)
    assert theirs.std() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


def test_a_mask_that_cuts_latents_marks_them_whole(
    kontext: Kontext, inpainting: FluxKontextInpaintPipeline, picture: Callable
) -> None:
    """diffusers asks the first pixel of each latent alone; it is given what ours marks."""
    size = (128, 128)
    image, noise = picture(*size), noise_for(size, 1)
    mask = np.zeros(size[::-1], bool)
    mask[13:49, 30:71] = True
    mask[101, 5] = True
    equivalent = np.zeros_like(mask)
    equivalent[8:56, 24:72] = True
    equivalent[96:104, 0:8] = True
    ours = our_pictures(kontext, image, mask, PROMPTS[:1], noise, 1.0)
    theirs = their_pictures(inpainting, image, equivalent, PROMPTS[:1], noise, 1.0)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    with_their_mask = their_pictures(inpainting, image, mask, PROMPTS[:1], noise, 1.0)
    assert np.abs(with_their_mask - theirs).max() > 100 * TOLERANCE


def test_the_tolerance_can_tell(kontext: Kontext, inpainting: FluxKontextInpaintPipeline, picture: Callable) -> None:
    """A mask moved by one latent, another strength or other noise moves the picture by far more."""
    size = (128, 128)
    image, mask, noise = picture(*size), aligned(size), noise_for(size, 1)
    theirs = their_pictures(inpainting, image, mask, PROMPTS[:1], noise, 0.6)
    for other in (
        our_pictures(kontext, image, np.roll(mask, 8, axis=0), PROMPTS[:1], noise, 0.6),
        our_pictures(kontext, image, mask, PROMPTS[:1], noise, 0.8),
        our_pictures(kontext, image, mask, PROMPTS[:1], noise[:, ::-1], 0.6),
    ):
        assert np.abs(other - theirs).max() > 10 * TOLERANCE

"""The same weights, noise and request give diffusers' picture."""

import copy

import numpy as np
import pytest
import torch
from plain_flow import before_rounding

from kontext_trt import Kontext
from kontext_trt.export.networks import conditioner
from kontext_trt.export.networks.build import build_module
from kontext_trt.export.networks.layers import sinusoid
from kontext_trt.export.tiny import tiny_config

TOLERANCE = 2e-5  # of 0..1, for a float32 picture; measured: 4e-6
STEPS = 4


def our_pictures(kontext: Kontext, noise: np.ndarray, image, prompts, size, guidance: float) -> np.ndarray:
    """(b, H, W, 3) in 0..1, before rounding to uint8."""
    options = {"size": size, "steps": STEPS, "guidance": guidance, "seed": 0, "noise": noise}
    result = kontext.generate(prompts, **options) if image is None else kontext.edit(image, prompts, **options)
    return before_rounding(kontext.bundle, result)


def their_pictures(pipeline, noise: np.ndarray, image, prompts, size, guidance: float) -> np.ndarray:
    width, height = size
    with torch.no_grad():
        return pipeline(
            image=image,
            prompt=list(prompts),
            latents=torch.from_numpy(noise),
            width=width,
            height=height,
            max_area=width * height,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            output_type="np",
            _auto_resize=False,
        ).images


def noise_for(size: tuple[int, int], batch: int) -> np.ndarray:
    tokens = size[0] * size[1] // 256
    return np.random.default_rng(size[0] + batch).standard_normal((batch, tokens, 64)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "reference_size", "prompts"),
    [
        ((128, 128), (128, 128), ["make it blue"]),
        ((96, 192), (96, 192), ["make it blue", "remove the tree"]),
        ((112, 144), (192, 96), ["a much longer instruction " * 16]),
        ((176, 64), (128, 128), ["make it blue", "Ünïcödé, 日本"]),
    ],
)
def test_edit(kontext: Kontext, pipeline, picture, size, reference_size, prompts):
    noise, image = noise_for(size, len(prompts)), picture(*reference_size)
    ours = our_pictures(kontext, noise, image, prompts, size, 2.5)
    theirs = their_pictures(pipeline, noise, image, prompts, size, 2.5)
    assert theirs.std() > 0.05  # a picture, not a flat field that anything would match
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("size", "prompts"), [((128, 128), ["a cat"]), ((192, 96), ["a cat", "a dog"])])
def test_text_to_image(kontext: Kontext, pipeline, size, prompts):
    noise = noise_for(size, len(prompts))
    ours = our_pictures(kontext, noise, None, prompts, size, 4.0)
    np.testing.assert_allclose(ours, their_pictures(pipeline, noise, None, prompts, size, 4.0), atol=TOLERANCE, rtol=0)


def test_tolerance_can_tell_a_wrong_model(kontext: Kontext, pipeline, picture):
    """Another guidance, prompt or reference moves the picture by far more than the tolerance."""
    size, noise, image = (128, 128), noise_for((128, 128), 1), picture(128, 128)
    theirs = their_pictures(pipeline, noise, image, ["make it blue"], size, 2.5)
    for other in (
        our_pictures(kontext, noise, image, ["make it blue"], size, 3.5),
        our_pictures(kontext, noise, image, ["make it red"], size, 2.5),
        our_pictures(kontext, noise, picture(128, 128, seed=1), ["make it blue"], size, 2.5),
        our_pictures(kontext, noise, None, ["make it blue"], size, 2.5),
    ):
        assert np.abs(other - theirs).max() > 10 * TOLERANCE


def test_seed_gives_diffusers_picture(kontext: Kontext, pipeline, picture):
    """The public call, noise drawn by each side from the same seed: pictures differ by rounding at most."""
    image = picture(144, 112)
    result = kontext.edit(image, "make it blue", steps=STEPS, guidance=2.5, seed=7)
    theirs = pipeline(
        image=image,
        prompt="make it blue",
        width=144,
        height=112,
        max_area=144 * 112,
        num_inference_steps=STEPS,
        guidance_scale=2.5,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
        _auto_resize=False,
    ).images[0]
    assert np.abs(np.asarray(result.image) - 255 * theirs).max() <= 0.5 + 255 * TOLERANCE


def test_timesteps_and_guidance_are_embedded_as_they_are(pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 diffusers, as BFL's code, rounds 1000 times both: 2500 to 2496. Ours stay in float32 up to the sines."""
    transformer = copy.deepcopy(pipeline.transformer).to(torch.bfloat16)
    config, theirs = transformer.config, []
    transformer.time_text_embed.register_forward_pre_hook(lambda module, given: theirs.extend(given[:2]))
    with torch.no_grad():
        transformer(
            hidden_states=torch.zeros(1, 4, config.in_channels, dtype=torch.bfloat16),
            encoder_hidden_states=torch.zeros(1, 8, config.joint_attention_dim, dtype=torch.bfloat16),
            pooled_projections=torch.zeros(1, config.pooled_projection_dim, dtype=torch.bfloat16),
            timestep=torch.tensor([0.3123]),
            guidance=torch.tensor([2.5]),
            img_ids=torch.zeros(4, 3),
            txt_ids=torch.zeros(8, 3),
        )
    assert [float(value) for value in theirs] == [312.0, 2496.0]

    ours: list[float] = []

    def embed(values: torch.Tensor, *rest: float) -> torch.Tensor:
        ours.append(float(values))
        return sinusoid(values, *rest)

    monkeypatch.setattr(conditioner, "sinusoid", embed)
    module = build_module("conditioner", tiny_config()).to(torch.bfloat16)
    with torch.no_grad():
        text, pooled, reference = torch.zeros(1, 8, 64), torch.zeros(1, 64), torch.zeros(1, 0, 64)
        module(torch.tensor([0.3123]), torch.tensor([2.5]), pooled, text, reference)
    assert sorted(ours) == pytest.approx([312.3, 2500.0], rel=1e-6)

"""Each component's graph computes what the module it came from computes, and the two halves of the transformer compose
to the whole."""

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from plain_steps import plain_step

from kontext_trt import Bundle
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu
from kontext_trt.runtime.flow.rope import position_ids, rope_tables

ATOL = 2e-5


@pytest.fixture
def executor(bundle: Bundle):
    made = OnnxRuntimeCpu(bundle)
    yield made
    made.close()


def run(executor: OnnxRuntimeCpu, component: str, **inputs: np.ndarray) -> list[np.ndarray]:
    return list(executor.run(component, inputs).values())


def random_ids(vocabulary: int, length: int) -> np.ndarray:
    """Two prompts: one that fills its context, one that ends early."""
    ids = np.random.default_rng(0).integers(3, vocabulary, (2, length)).astype(np.int32)
    ids[1, length // 4 :] = 0
    return ids


@pytest.mark.parametrize(("component", "vocabulary", "length"), [("clip", 514, 77), ("t5", 98, 512)])
def test_text_encoders(executor, pipeline: FluxKontextPipeline, component: str, vocabulary: int, length: int):
    ids = random_ids(vocabulary, length)
    (ours,) = run(executor, component, input_ids=ids)
    with torch.no_grad():
        if component == "clip":
            theirs = pipeline.text_encoder(torch.from_numpy(ids).long()).pooler_output
        else:
            theirs = pipeline.text_encoder_2(torch.from_numpy(ids).long())[0]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=ATOL)


@pytest.mark.parametrize("size", [(64, 96), (128, 32)])
def test_vae_encoder(executor, pipeline: FluxKontextPipeline, size: tuple[int, int]):
    pixels = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    (ours,) = run(executor, "vae_encoder", image=pixels)
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        latents = pipeline._encode_vae_image(image, torch.Generator())
    packed = pipeline._pack_latents(latents, 2, 16, *latents.shape[2:])
    np.testing.assert_allclose(ours, packed.numpy(), atol=ATOL)


@pytest.mark.parametrize("grid", [(4, 6), (8, 2)])
def test_vae_decoder(executor, pipeline: FluxKontextPipeline, grid: tuple[int, int]):
    latents = np.random.default_rng(2).standard_normal((2, *grid, 64)).astype(np.float32)
    ours, means = run(executor, "vae_decoder", latents=latents)
    height, width = 16 * grid[0], 16 * grid[1]
    packed = torch.from_numpy(latents.reshape(2, -1, 64))
    unpacked = pipeline._unpack_latents(packed, height, width, pipeline.vae_scale_factor)
    scaled = unpacked / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
    with torch.no_grad():
        decoded = pipeline.vae.decode(scaled).sample
    theirs = pipeline.image_processor.postprocess(decoded, output_type="np")
    assert np.abs(ours - 255 * theirs).max() <= 0.5 + 255 * ATOL  # rounded, and nothing but rounded
    np.testing.assert_allclose(means, decoded.mean(dim=(1, 2, 3)) / 2 + 0.5, atol=ATOL)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mean_of_a_picture_shows_what_its_pixels_hide(executor, value: float):
    latents = np.zeros((2, 2, 2, 64), np.float32)
    latents[1, 0, 1, 3] = value
    image, means = run(executor, "vae_decoder", latents=latents)
    assert image.dtype == np.uint8
    assert np.isfinite(means).tolist() == [True, False]


@pytest.mark.parametrize(("target", "reference"), [((4, 6), (5, 3)), ((2, 2), (8, 8)), ((6, 4), None)])
def test_conditioner_and_denoiser_make_a_step(
    executor, bundle: Bundle, pipeline: FluxKontextPipeline, target, reference
):
    """latents + (next sigma - sigma) * prediction, at the last of three steps."""
    draw = np.random.default_rng(3)
    batch, tokens = 2, target[0] * target[1]
    extra = 0 if reference is None else reference[0] * reference[1]
    latents, packed = (draw.standard_normal((batch, n, 64)).astype(np.float32) for n in (tokens, extra))
    text = draw.standard_normal((batch, 512, 64)).astype(np.float32)
    pooled = draw.standard_normal((batch, 64)).astype(np.float32)
    sigmas, guidance = np.array([1.0, 0.7, 0.31], np.float32), np.array([2.5, 4.0], np.float32)
    model = bundle.manifest.model
    references = () if reference is None else (reference,)
    cos, sin = rope_tables(512, target, references, model.rope_axes, model.rope_theta)
    conditioned = executor.run(
        "conditioner",
        {"timesteps": sigmas, "guidance": guidance, "pooled": pooled, "text": text, "reference": packed},
    )
    step = {
        "latents": latents,
        "text_tokens": conditioned["text_tokens"],
        "reference_tokens": conditioned["reference_tokens"],
        "modulation": conditioned["modulation"][2],
        "cos": cos,
        "sin": sin,
        "step_size": np.array([-0.31], np.float32),
        **plain_step(latents),
    }
    ours = executor.run("denoiser", step)["next_latents"]
    ids = torch.from_numpy(position_ids(512, target, references)).float()
    with torch.no_grad():
        prediction = pipeline.transformer(
            hidden_states=torch.from_numpy(np.concatenate([latents, packed], axis=1)),
            timestep=torch.full((batch,), 0.31),
            guidance=torch.from_numpy(guidance),
            pooled_projections=torch.from_numpy(pooled),
            encoder_hidden_states=torch.from_numpy(text),
            txt_ids=ids[:512],
            img_ids=ids[512:],
        ).sample[:, :tokens]
    assert prediction.std() > 0.1
    np.testing.assert_allclose(ours, latents - 0.31 * prediction.numpy(), atol=ATOL)

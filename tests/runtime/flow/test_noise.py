"""Schedule, positions, sizes, packing and noise against numbers worked out by hand, and against torch and diffusers."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxKontextPipeline
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS, calculate_shift
from PIL import Image

from kontext_trt.engine.bundle.manifest import FlowRecord
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import RequestError
from kontext_trt.engine.sizes import TRAINED_SIZES, check_size, parse_size, token_grid
from kontext_trt.runtime.flow.noise import rounded, standard_normal, starting_noise
from kontext_trt.runtime.flow.rope import position_ids, rope_tables
from kontext_trt.runtime.flow.schedule import noise_levels, shift_for
from kontext_trt.runtime.inputs.placement import Fit, nearest_size, place

FLOW = FlowRecord()


def test_shift_by_hand():
    assert shift_for(256, FLOW) == pytest.approx(0.5)
    assert shift_for(4096, FLOW) == pytest.approx(1.15)
    assert shift_for(8192, FLOW) == pytest.approx(1.8433333)  # what counting the reference would wrongly give


def test_noise_levels_by_hand():
    """e^1.15 = 3.158193: 1, 3.158193 / (3.158193 + 1/3), / (3.158193 + 1), / (3.158193 + 3), 0."""
    np.testing.assert_allclose(noise_levels(4, 4096, FLOW), [1, 0.9045310, 0.7595114, 0.5128440, 0], atol=1e-6)
    np.testing.assert_array_equal(noise_levels(1, 4096, FLOW), [1, 0])


@pytest.mark.parametrize("steps", [1, 4, 28, 50])
@pytest.mark.parametrize("tokens", [256, 4042, 4096, 4150])
def test_noise_levels_are_diffusers(steps: int, tokens: int):
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    np.testing.assert_allclose(noise_levels(steps, tokens, FLOW), scheduler.sigmas.numpy(), atol=1e-7)


def test_position_ids_by_hand():
    ids = position_ids(2, (1, 2), (2, 1))
    assert ids.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]]


def test_rope_tables_are_diffusers():
    target, reference, axes = (4, 6), (5, 3), (16, 56, 56)
    cos, sin = rope_tables(8, target, reference, axes, 10_000.0)
    expected = FluxPosEmbed(10_000, list(axes))(torch.from_numpy(position_ids(8, target, reference)))
    for ours, theirs in zip((cos, sin), expected, strict=True):
        assert ours.shape == (8 + 24 + 15, 64)
        np.testing.assert_array_equal(np.repeat(ours, 2, axis=1), theirs.numpy())


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


def test_trained_sizes():
    assert set(TRAINED_SIZES) == {tuple(size) for size in PREFERRED_KONTEXT_RESOLUTIONS}
    assert len(TRAINED_SIZES) == 17
    grids = [token_grid(size) for size in TRAINED_SIZES]
    counts = {4042, 4056, 4070, 4071, 4089, 4095, 4096, 4116, 4150}
    assert {height * width for height, width in grids} == counts


@pytest.mark.parametrize("size", TRAINED_SIZES)
def test_trained_sizes_stay_exact(size: tuple[int, int]):
    assert nearest_size(size, TRAINED_SIZES) == size
    assert check_size(size) == size
    image = Image.new("RGB", size)
    assert place(image, size, Fit.RESIZE)[0] is image


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ((1248, 832), (1248, 832)),
        ((1920, 1080), (1392, 752)),
        ((1080, 1920), (752, 1392)),
        ((3000, 2999), (1024, 1024)),
    ],
)
def test_nearest_size_by_hand(original: tuple[int, int], expected: tuple[int, int]):
    assert nearest_size(original, TRAINED_SIZES) == expected


@pytest.mark.parametrize("size", [(100, 96), (96, 100), (0, 16), (-16, 16)])
def test_size_off_the_grid_is_refused(size: tuple[int, int]):
    with pytest.raises(RequestError, match="multiples of 16; the nearest is"):
        check_size(size)


def test_sizes_are_read():
    assert [parse_size(text) for text in ("1568x672", "1024X1024")] == [(1568, 672), (1024, 1024)]
    for text in ("1024", "x", "1024x", "12.5x16", "axb", "-16x16", f"{'1' * 5000}x16"):
        with pytest.raises(RequestError, match="a size is WIDTHxHEIGHT, such as 1024x1024"):
            parse_size(text)


def halves() -> Image.Image:
    """100x50: left half red, right half blue."""
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[:, :50, 0] = pixels[:, 50:, 2] = 255
    return Image.fromarray(pixels)


def test_fit_resize_stretches_and_says_so():
    image, placement = place(halves(), (64, 64), Fit.RESIZE)
    assert image.size == (64, 64)
    assert placement.stretch == pytest.approx(2.0)
    assert placement.describe() == "100x50 -> 64x64 (resize), stretched by 100 %"


def test_fit_pad_keeps_everything_and_repeats_the_edge():
    image, placement = place(halves(), (64, 64), Fit.PAD)
    pixels = np.asarray(image)
    assert (placement.stretch, placement.cropped) == (1.0, 0)
    assert pixels[0, 0].tolist() == pixels[32, 0].tolist() == [255, 0, 0]
    assert pixels[63, 63].tolist() == [0, 0, 255]


def test_fit_pad_keeps_a_hairline():
    image, _ = place(Image.new("RGB", (8000, 2), "red"), (1568, 672), Fit.PAD)
    assert image.size == (1568, 672)
    assert image.getpixel((10, 600)) == (255, 0, 0)


def test_fit_crop_cuts_the_middle_out_and_says_so():
    image, placement = place(halves(), (64, 64), Fit.CROP)
    pixels = np.asarray(image)
    assert placement.cropped == 2500
    assert placement.describe() == "100x50 -> 64x64 (crop), 50 % cut away"
    assert pixels[32, 2].tolist() == [255, 0, 0]
    assert pixels[32, 61].tolist() == [0, 0, 255]

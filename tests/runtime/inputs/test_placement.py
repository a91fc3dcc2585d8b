"""How a reference picture comes to its size."""

import numpy as np
import pytest
from PIL import Image

from kontext_trt.engine.sizes import TRAINED_SIZES, check_size
from kontext_trt.runtime.inputs.placement import Fit, nearest_size, place


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

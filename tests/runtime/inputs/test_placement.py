"""How a reference picture comes to its size."""

import numpy as np
import pytest
from PIL import Image

from kontext_trt.engine.sizes import TRAINED_SIZES, check_size
from kontext_trt.runtime.inputs.placement import Fit, Placement, kept_box, nearest_size, place


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


class TestParts:
    """Where the original lies in what it was brought to, and what of it is seen."""

    def test_crop_keeps_the_box_that_pillow_s_fit_resamples_from(self, monkeypatch: pytest.MonkeyPatch):
        seen: list[tuple[float, ...]] = []
        monkeypatch.setattr(Image.Image, "resize", lambda image, size, method, box: seen.append(box) or image)
        rng = np.random.default_rng(0)
        for _ in range(300):
            width, height, *to = (int(side) for side in rng.integers(1, 2000, 4))
            original, size = (width, height), (to[0], to[1])
            place(Image.new("RGB", original), size, Fit.CROP)
            assert kept_box(original, size) == pytest.approx(seen.pop(), abs=1e-9)

    def test_of_crop_the_pixels_that_are_seen_whole(self):
        _, placement = place(Image.new("RGB", (101, 50)), (64, 64), Fit.CROP)
        assert placement.kept == (25.5, 0, 75.5, 50)
        assert placement.kept_pixels == (26, 0, 75, 50)

    def test_rounding_cuts_no_pixel(self):
        """832 / 1248 x 1500 is 1000, and a little off in float64."""
        for width in range(1100, 1400, 7):
            left, _, right, _ = Placement(original=(width, 1500), size=(832, 1248), fit=Fit.CROP).kept_pixels
            assert right - left == (1000 if width % 2 == 0 else 999)

    def test_a_hairline_may_be_seen_whole_nowhere(self):
        _, placement = place(Image.new("RGB", (1, 1000)), (1568, 672), Fit.CROP)
        left, top, right, bottom = placement.kept_pixels
        assert (left, right) == (0, 1)
        assert bottom == top

    @pytest.mark.parametrize("size", [(64, 64), (96, 32), (320, 16)])
    def test_pad_fills_what_is_not_its_edge(self, size: tuple[int, int]):
        rng = np.random.default_rng(0)
        original = Image.fromarray(rng.integers(0, 256, (50, 100, 3), dtype=np.uint8))
        padded, placement = place(original, size, Fit.PAD)
        left, top, right, bottom = placement.filled
        inner = np.asarray(original.resize((right - left, bottom - top), Image.Resampling.LANCZOS))
        pixels = np.asarray(padded)
        assert np.array_equal(pixels[top:bottom, left:right], inner)
        assert (pixels[:top] == pixels[top]).all()
        assert (pixels[:, right:] == pixels[:, right - 1 : right]).all()
        assert placement.kept == (0, 0, 100, 50)

    @pytest.mark.parametrize("fit", Fit)
    def test_what_needs_no_change_is_seen_and_fills_all(self, fit: Fit):
        _, placement = place(Image.new("RGB", (96, 32)), (96, 32), fit)
        assert placement.kept == placement.kept_pixels == placement.filled == (0, 0, 96, 32)

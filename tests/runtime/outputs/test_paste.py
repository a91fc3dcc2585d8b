"""An edit put back: not one byte differs outside the mask, whatever the sizes and the fit."""

import numpy as np
import pytest
from PIL import Image

from kontext_trt.engine.errors import RequestError
from kontext_trt.engine.sizes import TRAINED_SIZES
from kontext_trt.runtime.inputs.crops import crop_box
from kontext_trt.runtime.inputs.feather import feather
from kontext_trt.runtime.inputs.placed_masks import check_kept, place_mask
from kontext_trt.runtime.inputs.placement import Fit, nearest_size, place
from kontext_trt.runtime.outputs.paste import Paste

SIZES = tuple((width // 8, height // 8) for width, height in TRAINED_SIZES)


def noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    values = 127.5 + 100 * np.sin(6 * np.pi * (columns + 0.5) / width) * np.cos(np.pi * (rows + 0.5) / height)
    return np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)


def random_mask(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    mask = np.zeros((height, width), np.bool_)
    for _ in range(rng.integers(1, 4)):
        left, top = rng.integers(0, width), rng.integers(0, height)
        right = min(left + rng.integers(1, 1 + width // 2), width)
        bottom = min(top + rng.integers(1, 1 + height // 2), height)
        mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < rng.choice([0.5, 1])
    return mask


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("crop", [False, True])
def test_not_one_byte_differs_outside_the_mask(fit: Fit, crop: bool):
    rng = np.random.default_rng(len(fit.value) + crop)
    checked = 0
    for _ in range(20):
        width, height = (int(side) for side in rng.integers(20, 300, 2))
        original = noise(rng, width, height)
        mask = random_mask(rng, width, height)
        box = crop_box(mask, SIZES, 4) if crop else None
        left, top, right, bottom = box or (0, 0, width, height)
        region = Image.fromarray(original[top:bottom, left:right])
        _, placement = place(region, nearest_size(region.size, SIZES), fit)
        kept = placement.kept_pixels
        cut = np.ones((height, width), np.bool_)
        cut[top + kept[1] : top + kept[3], left + kept[0] : left + kept[2]] = False
        mask &= ~cut
        if not mask.any():
            continue
        checked += 1
        check_kept(mask[top:bottom, left:right], placement)
        assert place_mask(mask[top:bottom, left:right], placement).any()
        paste = Paste(original=original, alpha=feather(mask, int(rng.integers(0, 12))), placement=placement, box=box)
        before = original.copy()
        pasted = np.asarray(paste.apply(Image.fromarray(noise(rng, *placement.size))))
        assert np.array_equal(original, before)
        assert np.count_nonzero(pasted[~mask] != original[~mask]) == 0
        assert (pasted[mask] != original[mask]).any()
    assert checked >= 15


@pytest.mark.parametrize("fit", Fit)
def test_without_resampling_the_edit_s_bytes_are_taken(fit: Fit):
    rng = np.random.default_rng(0)
    original, edited = noise(rng, 200, 150), noise(rng, 96, 64)
    box = (30, 40, 126, 104)
    _, placement = place(Image.fromarray(original).crop(box), (96, 64), fit)
    mask = np.zeros((150, 200), np.bool_)
    mask[50:100, 40:120] = True
    alpha = np.where(mask, np.uint8(255), np.uint8(0))
    pasted = np.asarray(
        Paste(original=original, alpha=alpha, placement=placement, box=box).apply(Image.fromarray(edited))
    )
    assert np.array_equal(pasted[mask], edited[10:60, 10:90].reshape(-1, 3))
    assert np.array_equal(pasted[~mask], original[~mask])


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("size", [(160, 100), (100, 160), (333, 71), (24, 40)])
def test_a_picture_comes_back_where_it_was(fit: Fit, size: tuple[int, int]):
    """Nearer by far to the original than the original is to itself, shifted by half a pixel."""
    original = smooth(*size)
    placed, placement = place(Image.fromarray(original), (256, 192), fit)
    alpha = np.full(size[::-1], 255, np.uint8)
    pasted = np.asarray(Paste(original=255 - original, alpha=alpha, placement=placement).apply(placed))
    left, top, right, bottom = placement.kept_pixels
    inner = np.s_[top:bottom, left:right]
    found = np.abs(pasted[inner].astype(int) - original[inner]).mean()
    half_a_pixel = np.abs(np.diff(original[inner].astype(int), axis=1)).mean() / 2
    assert found < half_a_pixel / 5
    outside = np.ones(size[::-1], np.bool_)
    outside[inner] = False
    assert np.array_equal(pasted[outside], (255 - original)[outside])


def test_a_part_is_pasted_as_in_the_whole():
    """The edit is brought back only where it is marked; its pixels are those of all of it."""
    rng = np.random.default_rng(0)
    original, edited = noise(rng, 150, 90), Image.fromarray(noise(rng, 96, 64))
    _, placement = place(Image.fromarray(original), (96, 64), Fit.CROP)
    alpha = np.full((90, 150), 255, np.uint8)
    whole = np.asarray(Paste(original=original, alpha=alpha, placement=placement).apply(edited))
    mask = np.zeros((90, 150), np.bool_)
    mask[13:40, 31:77] = True
    part = np.asarray(Paste(original=original, alpha=alpha * mask, placement=placement).apply(edited))
    assert np.abs(part[mask].astype(int) - whole[mask]).max() <= 1  # the place is given to Pillow in float32


def test_alpha_mixes():
    original, edited = np.zeros((16, 16, 3), np.uint8), Image.new("RGB", (16, 16), (200, 100, 255))
    _, placement = place(Image.fromarray(original), (16, 16), Fit.RESIZE)
    alpha = np.full((16, 16), 51, np.uint8)  # a fifth
    pasted = Paste(original=original, alpha=alpha, placement=placement).apply(edited)
    assert pasted.getpixel((3, 3)) == (40, 20, 51)


def test_nothing_to_take_is_the_original():
    original = noise(np.random.default_rng(0), 20, 10)
    _, placement = place(Image.fromarray(original), (32, 16), Fit.RESIZE)
    paste = Paste(original=original, alpha=np.zeros((10, 20), np.uint8), placement=placement)
    assert np.array_equal(np.asarray(paste.apply(Image.new("RGB", (32, 16)))), original)


def test_an_edit_of_another_size_is_refused():
    original = np.zeros((10, 20, 3), np.uint8)
    _, placement = place(Image.fromarray(original), (32, 16), Fit.RESIZE)
    paste = Paste(original=original, alpha=np.zeros((10, 20), np.uint8), placement=placement)
    with pytest.raises(
        RequestError, match=r"the edit is 64x32, and the picture was brought to 32x16: .* leave size out"
    ):
        paste.apply(Image.new("RGB", (64, 32)))

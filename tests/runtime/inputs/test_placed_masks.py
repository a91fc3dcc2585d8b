"""A mask goes where its picture goes, and its latents are those that diffusers edits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FluxKontextInpaintPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from kontext_trt.engine.errors import RequestError
from kontext_trt.runtime.inputs.placed_masks import bounds, check_kept, latent_keep, place_mask, whole_latents
from kontext_trt.runtime.inputs.placement import Fit, place


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.bool_)
    for _ in range(rng.integers(1, 5)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + rng.integers(1, 1 + height // 2), left : left + rng.integers(1, 1 + width // 2)] = True
    return mask


def their_keep(mask: np.ndarray, channels: int) -> np.ndarray:
    """What the pipeline makes of a mask: its own functions, without its networks."""
    height, width = mask.shape
    processor = VaeImageProcessor(
        vae_scale_factor=16,
        vae_latent_channels=channels // 4,
        do_normalize=False,
        do_binarize=True,
        do_convert_grayscale=True,
    )
    picture = Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0)))
    condition = processor.preprocess(picture, height=height, width=width)
    pipeline = SimpleNamespace(
        vae_scale_factor=8,
        vae=SimpleNamespace(config=SimpleNamespace(shift_factor=0.0, scaling_factor=1.0)),
        _pack_latents=FluxKontextInpaintPipeline._pack_latents,
    )
    latents = torch.zeros(1, 16, height // 8, width // 8)  # 16 channels are taken for latents and not encoded
    packed, _ = FluxKontextInpaintPipeline.prepare_mask_latents(
        pipeline, condition, latents, 1, 16, 1, height, width, torch.float32, "cpu", None
    )
    return (1 - packed)[0].numpy()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (7, 2), (64, 64)])
def test_latents_are_kept_as_diffusers_keeps_them(rows: int, columns: int):
    rng = np.random.default_rng(rows)
    for _ in range(3):
        mask = random_mask(rng, 16 * rows, 16 * columns)
        keep = latent_keep(mask, (rows, columns), 64)
        assert keep.dtype == np.float32
        np.testing.assert_array_equal(keep, their_keep(mask, 64))


def test_of_whole_latents_every_marked_pixel_is_edited():
    mask = np.zeros((32, 48), np.bool_)
    mask[9, 17] = True
    assert latent_keep(mask, (2, 3), 8).all(), "diffusers edits nothing"
    whole = whole_latents(mask)
    assert bounds(whole) == (16, 8, 24, 16)
    keep = latent_keep(whole, (2, 3), 8)
    assert np.argwhere(keep == 0).tolist() == [[1, 2], [1, 6]]  # token (0, 1): the lower left of 2 x 2, in 2 channels


class TestPlaces:
    @pytest.mark.parametrize("fit", Fit)
    def test_at_the_same_size_it_stays(self, fit: Fit):
        mask = random_mask(np.random.default_rng(0), 48, 80)
        _, placement = place(Image.new("RGB", (80, 48)), (80, 48), fit)
        np.testing.assert_array_equal(place_mask(mask, placement), mask)

    @pytest.mark.parametrize("fit", Fit)
    @pytest.mark.parametrize("original", [(100, 60), (61, 103), (16, 17), (200, 201)])
    def test_every_marked_pixel_is_covered_and_not_much_more(self, fit: Fit, original: tuple[int, int]):
        """Against each pixel's place, one at a time."""
        width, height = original
        _, placement = place(Image.new("RGB", original), (96, 64), fit)
        left, top, right, bottom = placement.kept
        x, y, end_x, end_y = placement.filled
        scale_x, scale_y = (end_x - x) / (right - left), (end_y - y) / (bottom - top)
        rng = np.random.default_rng(width)
        for row, column in zip(rng.integers(0, height, 20), rng.integers(0, width, 20), strict=True):
            mask = np.zeros((height, width), np.bool_)
            mask[row, column] = True
            placed = place_mask(mask, placement)
            assert placed.shape == (64, 96)
            covers_x = np.clip(x + (np.array([column, column + 1]) - left) * scale_x, x, end_x)
            covers_y = np.clip(y + (np.array([row, row + 1]) - top) * scale_y, y, end_y)
            if np.ptp(covers_x) < 1e-9 or np.ptp(covers_y) < 1e-9:
                assert not placed.any(), "it was cut away"
                continue
            inner = placed[y:end_y, x:end_x]
            found = bounds(inner)
            assert (found[0], found[1]) == (
                int(np.floor(covers_x[0] + 1e-6)) - x,
                int(np.floor(covers_y[0] + 1e-6)) - y,
            )
            assert (found[2], found[3]) == (int(np.ceil(covers_x[1] - 1e-6)) - x, int(np.ceil(covers_y[1] - 1e-6)) - y)
            assert inner[found[1] : found[3], found[0] : found[2]].all()

    def test_padding_is_marked_as_the_edge_is(self):
        mask = np.zeros((50, 100), np.bool_)
        mask[:, 90:] = mask[45:] = True
        _, placement = place(Image.new("RGB", (100, 50)), (64, 64), Fit.PAD)
        placed = place_mask(mask, placement)
        assert placed[0].tolist() == placed[16].tolist() == [False] * 57 + [True] * 7
        assert placed[48:].all()


class TestCut:
    def placement(self):
        return place(Image.new("RGB", (100, 50)), (64, 64), Fit.CROP)[1]

    def test_what_is_kept_may_be_marked(self):
        mask = np.zeros((50, 100), np.bool_)
        mask[:, 25:75] = True
        check_kept(mask, self.placement())
        assert place_mask(mask, self.placement()).all()

    def test_what_is_cut_away_may_not(self):
        mask = np.zeros((50, 100), np.bool_)
        mask[:2, 20:80] = True
        message = (
            r"the mask marks 120 pixels, and fit='crop' cuts 20 of them away: of 100x50 it keeps \(25, 0, 75, 50\); "
            "choose fit='resize' or fit='pad', or mark what is kept"
        )
        with pytest.raises(RequestError, match=message):
            check_kept(mask, self.placement())

    @pytest.mark.parametrize("fit", [Fit.RESIZE, Fit.PAD])
    def test_other_fits_cut_nothing(self, fit: Fit):
        check_kept(np.ones((50, 100), np.bool_), place(Image.new("RGB", (100, 50)), (64, 64), fit)[1])

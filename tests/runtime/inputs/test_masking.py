"""Masks made ready: details that are refused, what is edited of a picture, and how that is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kontext_trt import Kontext, Latents, RequestError
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.bundle.manifest import ModelRecord
from kontext_trt.runtime.inputs.masking import FEATHER, MaskCrop, Masking, prepare_mask
from kontext_trt.runtime.inputs.placement import Fit

BOX = (16, 24, 40, 48)


@pytest.fixture
def model(bundle: Bundle) -> ModelRecord:
    return bundle.manifest.model


def latents(size: tuple[int, int], image: Image.Image | None = None, channels: int = 64) -> Latents:
    return Latents(tokens=np.zeros((size[0] * size[1] // 256, channels), np.float32), size=size, image=image)


def test_defaults() -> None:
    masking = Masking(mask=BOX)
    assert (masking.crop, masking.feather, masking.margin) == (MaskCrop.NONE, FEATHER, None)
    assert FEATHER == 16
    given = Masking(mask=BOX, crop="mask", feather=np.int64(3), margin=np.int32(8))
    assert (given.crop, given.feather, given.margin) == (MaskCrop.MASK, 3, 8)
    assert [type(number) for number in (given.feather, given.margin)] == [int, int]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mask": 3}, "a mask must be a picture .* or boxes .* not int"),
        ({"mask": ()}, "the mask marks nothing: there is no box in it"),
        ({"crop": "box"}, "crop must be one of none, mask, not 'box'"),
        ({"feather": -1}, "feather must be a whole number of pixels from 0 to 128, not -1"),
        ({"feather": 129}, "from 0 to 128, not 129"),
        ({"feather": 1.5}, "feather must be a whole number of pixels"),
        ({"margin": -1}, "the margin around a mask must be a whole number of pixels from 0 on, not -1"),
        ({"margin": True}, "the margin around a mask must be a whole number of pixels from 0 on, not True"),
    ],
)
def test_what_is_no_mask_is_refused_before_anything_is_read(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Masking(**{"mask": BOX} | fields)


def test_details_need_a_mask_that_has_none(kontext: Kontext) -> None:
    assert Masking.of(BOX, {"feather": 2}).feather == 2
    with pytest.raises(RequestError, match="feather and margin say how a mask is used, and there is no mask"):
        kontext.edit("a.png", "x", feather=2, margin=3)
    with pytest.raises(RequestError, match="crop say how a mask is used, and there is a Masking, which says them itse"):
        kontext.edit("a.png", "x", mask=Masking(mask=BOX), crop="mask")


def test_latents_without_a_picture_have_nothing_to_paste_on(model: ModelRecord) -> None:
    with pytest.raises(RequestError, match="a mask pastes an edit on a picture, and these latents came without theirs"):
        prepare_mask(latents((128, 128)), Masking(mask=BOX), Fit.RESIZE, model)


def test_latents_of_another_model_are_refused(model: ModelRecord, picture: Callable) -> None:
    with pytest.raises(RequestError, match="latents of 128 channels are of another model"):
        prepare_mask(latents((128, 128), picture(128, 128), 128), Masking(mask=BOX), Fit.RESIZE, model)


def test_a_mask_of_another_size_is_refused(model: ModelRecord, picture: Callable) -> None:
    masking = Masking(mask=np.ones((100, 128), bool))
    with pytest.raises(RequestError, match="the mask is 128x100, and the picture, upright, is 128x128; bring the mask"):
        prepare_mask(picture(128, 128), masking, Fit.RESIZE, model)


def test_a_mask_that_the_fit_cuts_away_is_refused(model: ModelRecord, picture: Callable) -> None:
    masking = Masking(mask=(0, 0, 8, 64))
    with pytest.raises(RequestError, match="the mask marks 512 pixels, and fit='crop' cuts 512 of them away"):
        prepare_mask(picture(300, 64), masking, Fit.CROP, model)
    assert prepare_mask(picture(300, 64), masking, Fit.PAD, model)[1].placement.size == (192, 96)


def test_all_of_a_picture_is_edited_without_a_crop(model: ModelRecord, picture: Callable) -> None:
    image = picture(128, 128)
    prepared, reference = prepare_mask(image, Masking(mask=BOX, feather=0), Fit.RESIZE, model)
    np.testing.assert_array_equal(reference.pixels, np.asarray(image))
    np.testing.assert_array_equal(prepared.original, np.asarray(image))
    marked = np.zeros((128, 128), bool)
    marked[24:48, 16:40] = True
    np.testing.assert_array_equal(prepared.alpha, np.where(marked, 255, 0))
    assert (prepared.box, prepared.placement) == ((0, 0, 128, 128), reference.placement)
    tokens = prepared.keep.reshape(8, 8, 16, 2, 2)
    latent = tokens.transpose(2, 0, 3, 1, 4).reshape(16, 16, 16)
    np.testing.assert_array_equal(latent, np.broadcast_to(~marked[::8, ::8], latent.shape))
    assert prepared.describe() == "3.5 % of 128x128, feather 0"


def test_a_crop_is_edited_at_the_pictures_own_resolution(model: ModelRecord, picture: Callable) -> None:
    image = picture(400, 300)
    prepared, reference = prepare_mask(image, Masking(mask=(300, 200, 340, 230), crop="mask"), Fit.RESIZE, model)
    left, top, right, bottom = prepared.box
    assert reference.placement.original == reference.placement.size == (right - left, bottom - top)
    np.testing.assert_array_equal(reference.pixels, np.asarray(image)[top:bottom, left:right])
    size = f"{right - left}x{bottom - top}"
    assert prepared.describe() == f"1.0 % of 400x300, in a crop of {size} at {left},{top}, feather 16"


def test_latents_are_carried_unless_a_part_of_them_is_edited(model: ModelRecord, picture: Callable) -> None:
    given = latents((256, 256), picture(256, 256))
    prepared, reference = prepare_mask(given, Masking(mask=BOX), Fit.RESIZE, model)
    assert reference.latents is given.tokens
    assert (reference.placement.carried, prepared.placement.size) == (True, (256, 256))
    prepared, reference = prepare_mask(given, Masking(mask=BOX, crop="mask", margin=0), Fit.RESIZE, model)
    assert reference.latents is None
    assert reference.placement.size in model.sizes
    assert "in a crop of" in prepared.describe()

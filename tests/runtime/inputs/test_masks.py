"""Whatever a user marks a picture with: one bool per pixel, or an error that says what is wrong."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from kontext_trt.engine.errors import ImageError, RequestError
from kontext_trt.runtime.inputs.masks import check_mask, read_mask

SIZE = (6, 4)
MARKED = np.zeros((4, 6), np.bool_)
MARKED[1:3, 2:5] = True


def grey(inside: int = 255, outside: int = 0) -> np.ndarray:
    return np.where(MARKED, np.uint8(inside), np.uint8(outside))


def rgba(inside: int, outside: int, colour: int = 255) -> Image.Image:
    alpha = grey(inside, outside)
    return Image.fromarray(np.stack([np.full_like(alpha, colour)] * 3 + [alpha], axis=2))


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "source",
    [
        MARKED,
        grey(),
        grey(128, 127),
        np.stack([grey()] * 3, axis=2),
        Image.fromarray(grey()),
        Image.fromarray(grey()).convert("1"),
        Image.fromarray(grey().astype(np.uint16) * 257),
        encoded(Image.fromarray(grey())),
        io.BytesIO(encoded(Image.fromarray(grey()))),
        rgba(0, 255),
        rgba(127, 128, colour=0),
        np.asarray(rgba(0, 255)),
        (2, 1, 5, 3),
        [2, 1, 5, 3],
        [(2, 1, 5, 2), (2, 2, 5, 3)],
        [np.array([2, 1, 5, 3])],
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_form_marks_the_same(source):
    check_mask(source)
    mask = read_mask(source, SIZE)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, MARKED)


def test_transparency_that_is_opaque_everywhere_leaves_it_to_the_colours():
    opaque = np.concatenate([np.stack([grey()] * 3, axis=2), np.full((4, 6, 1), 255, np.uint8)], axis=2)
    assert np.array_equal(read_mask(opaque, SIZE), MARKED)


def test_a_mask_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    data = encoded(Image.fromarray(np.rot90(grey())), exif=exif)
    assert np.array_equal(read_mask(data, SIZE), MARKED)


def test_a_mask_is_the_reader_s_own():
    source = MARKED.copy()
    read_mask(source, SIZE)[:] = False
    assert np.array_equal(source, MARKED)


def test_boxes_are_cut_at_the_picture_s_borders():
    assert np.argwhere(read_mask((-5, -5, 1, 2), SIZE)).tolist() == [[0, 0], [1, 0]]
    assert np.argwhere(read_mask((5, 3, 100, 100), SIZE)).tolist() == [[3, 5]]


def test_all_marked_is_said(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert read_mask((0, 0, 6, 4), SIZE).all()
    assert caplog.messages == ["the mask marks the whole picture, so nothing of it is kept"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (MARKED.T, r"the mask is 4x6, and the picture, upright, is 6x4; bring the mask"),
        (np.zeros((4, 6), np.bool_), "the mask marks nothing: it has no True"),
        (grey(1), "the mask marks nothing: white marks, from 128 on, and its brightest value is 1"),
        (rgba(200, 255), "the mask marks nothing: alpha below 128 marks, and its least is 200"),
        ((6, 0, 9, 4), r"the mask's box \(6, 0, 9, 4\) lies outside the picture of 6x4 px"),
        ((0, -3, 2, 0), r"the mask's box \(0, -3, 2, 0\) lies outside"),
    ],
)
def test_masks_that_do_not_fit_their_picture_are_refused(source, words: str):
    check_mask(source)
    with pytest.raises(RequestError, match=words):
        read_mask(source, SIZE)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, r"a mask must be a picture \(a path.*, or boxes \(left, top, right, bottom\), not NoneType"),
        (3, "a mask must be a picture .*, not int"),
        (np.zeros((4, 6, 1), np.bool_), r"a mask of bools must be of shape \(h, w\), this is \(4, 6, 1\)"),
        (np.zeros((4, 6)), r"a mask's array must be bool \(h, w\), or uint8 as a picture is; this is float64 \(4, 6\)"),
        ([], "the mask marks nothing: there is no box in it"),
        ((1, 2, 3), r"a mask's box is four whole numbers of pixels, .*, not \(1, 2, 3\)"),
        ((0.0, 0.0, 1.0, 1.0), "a mask's box is four whole numbers"),
        (["a.png"], "a mask's box is four whole numbers"),
        ([(0, 0, 1, 1), None], "a mask's box is four whole numbers of pixels, .*, not None"),
        ((2, 0, 2, 4), r"the mask's box \(2, 0, 2, 4\) is empty: .* right beyond left and bottom beyond top"),
        ([(0, 0, 1, 1), (0, 3, 2, 1)], r"the mask's box \(0, 3, 2, 1\) is empty"),
    ],
)
@pytest.mark.parametrize("check", [check_mask, lambda source: read_mask(source, SIZE)], ids=["check", "read"])
def test_what_is_no_mask_is_refused(check, source, words: str):
    with pytest.raises(RequestError, match=words):
        check(source)


def test_a_mask_s_picture_is_called_a_mask(tmp_path):
    with pytest.raises(ImageError, match=r"^mask .*gone\.png cannot be read"):
        read_mask(tmp_path / "gone.png", SIZE)
    with pytest.raises(ImageError, match=r"^the mask is an address \(https://"):
        check_mask("https://host/mask.png")
    with pytest.raises(ImageError, match=r"^the mask is a file that is open as text"):
        check_mask(io.StringIO())


def test_a_check_reads_no_file(tmp_path):
    check_mask(tmp_path / "gone.png")

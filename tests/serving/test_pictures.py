"""Pictures of requests: formats, sizes, and texts that stand for them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from kontext_trt.serving.options import Limits
from kontext_trt.serving.pictures import encode_picture, picture_bytes
from kontext_trt.serving.refusals import Refusal


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is of a size, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_the_three_formats_are_read_from_bytes_and_texts(picture: Callable, file_format: str):
    file = io.BytesIO()
    picture(40, 30).save(file, format=file_format)
    data, text = file.getvalue(), base64.b64encode(file.getvalue()).decode()
    for value in (data, text, f"data:image/x;base64,{text}"):
        assert picture_bytes(value, "image", Limits()) == data


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "ICO"])
def test_other_formats_are_not_opened(picture: Callable, file_format: str):
    file = io.BytesIO()
    picture(32, 32).save(file, format=file_format)
    with pytest.raises(Refusal, match="this is no picture in PNG, JPEG or WebP") as caught:
        picture_bytes(file.getvalue(), "mask", Limits())
    assert (caught.value.code, caught.value.param) == ("invalid_image", "mask")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((6000, 6000), "is 6000x6000, and up to 32,000,000 pixels are read"),
        ((12_000, 12_000), "the picture is too large"),
        ((60_000, 60_000), "the picture is too large"),
    ],
)
def test_a_file_that_would_grow_is_refused_by_its_header(size: tuple[int, int], words: str):
    with pytest.raises(Refusal, match=words) as caught:
        picture_bytes(png_of(*size), "image", Limits())
    assert caught.value.code == "image_too_large"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("https://example.org/a.png", "url_not_supported"),
        ("FTP://example.org/a.png", "url_not_supported"),
        ("data:image/png;base64", "invalid_image"),
        ("data:image/png;base64,####", "invalid_image"),
        ("not base64 at all", "invalid_image"),
        ("", "invalid_image"),
        (17, "invalid_image"),
        (None, "invalid_image"),
        (["x"], "invalid_image"),
    ],
    ids=str,
)
def test_texts_that_are_no_pictures(value: object, code: str):
    with pytest.raises(Refusal) as caught:
        picture_bytes(value, "image", Limits())
    assert caught.value.code == code


def test_quality_is_of_jpeg_and_webp(picture: Callable):
    image = picture(64, 64)
    assert Image.open(io.BytesIO(encode_picture(image, "png", 10))).convert("RGB").tobytes() == image.tobytes()
    for file_format in ("jpeg", "webp"):
        assert len(encode_picture(image, file_format, 10)) < len(encode_picture(image, file_format, 95))

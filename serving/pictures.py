"""Takes the pictures of a request apart from what only looks like one, and encodes those that are made."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from PIL import Image

from ..engine.errors import ImageError
from ..runtime.inputs.sources import check_encoded, read_encoded
from .options import Limits
from .refusals import Refusal

FORMATS = ("PNG", "JPEG", "WEBP")
"""The formats that are read, by Pillow's names: those of OpenAI's contract."""
PNG_LEVEL = 1
"""The zlib level of PNG: 6 takes four times as long for files that are a tenth smaller."""


def picture_bytes(value: Any, param: str, limits: Limits) -> bytes:
    """Return the bytes of an encoded picture of a request, whose format and size are looked at.

    Args:
        value: The bytes of a file, a data: URL, or a text in base64.
        param: The field that it came in.
        limits: The most pixels.

    Raises:
        Refusal: It is an address, of another type, no picture in PNG, JPEG or WebP, or has too many pixels.
    """
    data = value if isinstance(value, bytes) else _decoded(value, param)
    _check_header(data, param, limits)
    return data


def _decoded(value: Any, param: str) -> bytes:
    if not isinstance(value, str):
        raise Refusal(
            f"a picture is a file, a data: URL or base64, not {type(value).__name__}", param=param, code="invalid_image"
        )
    start = value[:64].lstrip().lower()
    try:
        if start.startswith("data:"):
            return read_encoded(value, "picture")
        check_encoded(value[:300], "picture")
    except ImageError as error:
        code = "invalid_image" if start.startswith("data:") else "url_not_supported"
        raise Refusal(str(error), param=param, code=code) from None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(
            "the picture is neither a data: URL nor base64; nothing else is read, and no address is fetched",
            param=param,
            code="invalid_image",
        ) from None


def _check_header(data: bytes, param: str, limits: Limits) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refusal(f"the picture is too large: {error}", param=param, code="image_too_large") from None
    except Exception:  # each format raises what it likes
        raise Refusal(
            f"this is no picture in PNG, JPEG or WebP ({len(data):,} bytes)", param=param, code="invalid_image"
        ) from None
    if width * height > limits.pixels:
        raise Refusal(
            f"the picture is {width}x{height}, and up to {limits.pixels:,} pixels are read; make it smaller",
            param=param,
            code="image_too_large",
        )


def encode_picture(image: Image.Image, file_format: str, quality: int) -> bytes:
    """Return a picture as the bytes of a file.

    Args:
        image: The picture, in mode RGB.
        file_format: "png", "jpeg" or "webp".
        quality: Of JPEG and WebP, 0 to 100.
    """
    file = io.BytesIO()
    if file_format == "png":
        image.save(file, format="PNG", compress_level=PNG_LEVEL)
    else:
        image.save(file, format=file_format.upper(), quality=quality)
    return file.getvalue()

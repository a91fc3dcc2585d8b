"""Writes pictures to files, each whole or not at all, with the request that made them."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...engine.errors import ImageError, RequestError
from ...engine.system.changes import try_place
from ...engine.system.files import atomic_file
from .provenance import Signing, check_signed_format

logger = logging.getLogger(__name__)

METADATA_KEY = "kontext-trt"
EXIF_IMAGE_DESCRIPTION = 0x010E
_WITH_EXIF = ("JPEG", "WEBP", "TIFF", "AVIF")
_COMMENTED = ("GIF", "JPEG2000")
"""The formats that hold a comment and no EXIF."""
JPEG_EXIF_BYTES = 65533
"""The most bytes of EXIF that JPEG holds, in one marker."""


def check_output(path: Path) -> str:
    """Return Pillow's name of the format that a suffix chooses, once a file could be made there.

    Nothing is left behind.

    Args:
        path: The file that is to be written later.

    Raises:
        RequestError: No file can be made there, or Pillow writes no colour picture of that suffix.
    """
    name = Image.registered_extensions().get(path.suffix.lower())
    if name is None:
        raise RequestError(f"{path}: no picture format has the suffix {path.suffix!r}; use .png, .jpg or .webp")
    if not _holds_colour(name):
        raise RequestError(f"{path}: Pillow writes no colour picture as {name}; use .png, .jpg or .webp")
    if os.path.isdir(path):  # which raises for no name
        raise RequestError(f"{path} cannot be written: it is a folder; choose another name")
    try:
        try_place(path)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be written: {error}; choose another place") from error
    return name


def _holds_colour(file_format: str) -> bool:
    """Return whether Pillow can write a colour picture in a format: some it only reads, some are black and white."""
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), format=file_format)
    except Exception:  # each format raises what it likes
        return False
    return True


def write_pictures(pictures: Sequence[tuple[Image.Image, Mapping[str, Any], Path]], signing: Signing | None) -> None:
    """Write pictures, each with its request, as `Result.save` says; none before all that are to be signed are.

    Args:
        pictures: Each picture, what made it as values that JSON can hold, and its file. Missing folders are made.
        signing: Who signs them; None for nobody.

    Raises:
        RequestError: No file can be made there.
        ProvenanceError, ImageError: They cannot be signed.
        OSError: A file cannot be written.
    """
    formats = [check_output(path) for _, _, path in pictures]
    if signing is None:
        for (image, request, path), file_format in zip(pictures, formats, strict=True):
            with new_file(path) as file:
                image.save(file, format=file_format, **_options(request, path, file_format))
        return
    signed: list[bytes] = []
    for (image, request, path), file_format in zip(pictures, formats, strict=True):
        check_signed_format(path, file_format)
        encoded = io.BytesIO()
        image.save(encoded, format=file_format, **_options(request, path, file_format))
        signed.append(signing.sign(encoded.getvalue(), request))
    for (_, _, path), data in zip(pictures, signed, strict=True):
        with new_file(path) as file:
            file.write(data)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a binary file that appears at a path whole, on a clean exit, or not at all. Missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        yield file


def read_request(data: bytes) -> Mapping[str, Any]:
    """Return the request that `write_pictures` put into a PNG, JPEG or WebP; empty if there is none.

    Raises:
        ImageError: This is no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            text = image.info.get(METADATA_KEY) or image.getexif().get(EXIF_IMAGE_DESCRIPTION)
    except Exception as error:  # each format raises what it likes
        raise ImageError(f"this is no picture in a format that Pillow reads: {error}") from error
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) and "prompt" in found and "bundle" in found else {}


def _options(request: Mapping[str, Any], path: Path, file_format: str) -> dict[str, Any]:
    """Return what Pillow is told beside the format: the quality, and the request where the format holds it."""
    options: dict[str, Any] = {}
    if file_format == "PNG":
        info = PngInfo()
        info.add_itxt(METADATA_KEY, json.dumps(request, ensure_ascii=False))
        options["pnginfo"] = info
    elif file_format in _COMMENTED:
        options["comment"] = json.dumps(request).encode()
    elif file_format not in _WITH_EXIF:
        logger.warning("%s: %s holds no text, so the request is left out; .png and .webp hold it", path, file_format)
    else:
        exif = Image.Exif()
        exif[EXIF_IMAGE_DESCRIPTION] = json.dumps(request)  # in ASCII: Pillow writes nothing else there
        if file_format != "TIFF":
            options["quality"] = 95
        if file_format == "JPEG" and len(exif.tobytes()) > JPEG_EXIF_BYTES:
            logger.warning("%s: the request is too long for a JPEG, and is left out; .png and .webp hold it", path)
        else:
            options["exif"] = exif
    return options

"""Writes pictures to files, each whole or not at all, with the request that made them."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...engine.errors import RequestError
from ...engine.system.files import atomic_file

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
        place = path.resolve() if os.path.islink(path) else path
        made = [folder for folder in place.parents if not folder.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        tempfile.NamedTemporaryFile(dir=place.parent, prefix=".kontext-trt.").close()
        with suppress(FileNotFoundError):
            place.lstat()  # raises for a name that no file can have
        with suppress(OSError):  # somebody else put something there meanwhile
            for folder in made:
                folder.rmdir()
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


def write_picture(image: Image.Image, request: Mapping[str, Any], path: Path, file_format: str) -> None:
    """Write a picture with its request as `Result.save` says.

    Args:
        image: The picture.
        request: What made it, as values that JSON can hold.
        path: The file. Missing folders are made.
        file_format: Pillow's name of the format, as `check_output` returns it.

    Raises:
        OSError: The file cannot be written.
    """
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
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        image.save(file, format=file_format, **options)

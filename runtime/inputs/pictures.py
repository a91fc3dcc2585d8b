"""Reads a reference picture: whatever it is, upright RGB comes out, or an error that says what is wrong with it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ...engine.errors import ImageError

MAX_SIDE = 16384
"""The longest side in pixels: a larger picture is a mistake or an attack, and would take gigabytes to decode."""

Picture = Union[str, "os.PathLike[str]", bytes, Image.Image, NDArray[np.uint8]]
"""A path, an encoded file's bytes, a PIL image, or an array (h, w), (h, w, 3) or (h, w, 4) uint8."""


def check_picture(picture: object) -> None:
    """Raise ImageError unless this is of a type that a picture can be read from."""
    if not isinstance(picture, (str, os.PathLike, bytes, Image.Image, np.ndarray)):
        raise ImageError(
            "a picture must be a path, the bytes of an encoded file, a PIL image or a uint8 array, "
            f"not {type(picture).__name__}"
        )


def read_picture(picture: Picture) -> Image.Image:
    """Read a picture as upright RGB, its first frame if it has several; transparency is laid over white.

    Args:
        picture: A path, an encoded file's bytes, a PIL image, or an array (h, w), (h, w, 3) or (h, w, 4) uint8.

    Returns:
        A picture in mode RGB, turned as its EXIF orientation says.

    Raises:
        ImageError: The picture is missing, empty, no picture, cut short, or has a side over 16384 px; the message names
            the file. Or `picture` is no `Picture`.
    """
    check_picture(picture)
    name = f"picture {os.fspath(picture)}" if isinstance(picture, (str, os.PathLike)) else "the picture"
    try:
        image = _open(picture, name)
        if max(image.size) > MAX_SIDE or min(image.size) < 1:
            raise ImageError(
                f"{name} is {image.width}x{image.height}; sides of 1 to {MAX_SIDE} px are possible, "
                "make it smaller first"
            )
        return _to_rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name} cannot be decoded, it may be cut short: {error}") from error


def _open(picture: Picture, name: str) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    try:
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{name} cannot be read: {reason}") from error
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture in a format that Pillow reads (PNG, JPEG, WebP, ...)") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error}") from error


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(
            f"an array must be uint8 of shape (h, w), (h, w, 3) or (h, w, 4); this is {array.dtype} {array.shape}"
        )
    return Image.fromarray(array)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits per pixel: Pillow's own conversion would clip
        return Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")

"""Reads a reference picture: whatever it is, upright RGB comes out, or an error that says what is wrong with it."""

from __future__ import annotations

import io
import logging
from typing import Any, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ...engine.errors import ImageError
from .sources import EncodedPicture, called, check_encoded, is_encoded, read_encoded

logger = logging.getLogger(__name__)

MAX_SIDE = 16384
"""The longest side in pixels: a larger picture is a mistake or an attack, and would take gigabytes to decode."""

Picture = Union[EncodedPicture, Image.Image, NDArray[np.uint8]]
"""A path, a data: URL, an encoded file's bytes, a file object, a PIL image, or an array (h, w), (h, w, 3) or (h, w, 4)
uint8."""


def check_picture(picture: object) -> None:
    """Raise ImageError unless this is of a type that a picture can be read from; nothing is read."""
    if not is_picture(picture):
        raise ImageError(
            "a picture must be a path, the bytes of an encoded file, a file object, a data: URL, a PIL image "
            f"or a uint8 array, not {type(picture).__name__}"
        )
    if is_encoded(picture):
        check_encoded(picture, "picture")


def is_picture(picture: object) -> TypeGuard[Picture]:
    """Return whether this is of a type that a picture can be read from."""
    return isinstance(picture, (Image.Image, np.ndarray)) or is_encoded(picture)


def read_picture(picture: Picture) -> Image.Image:
    """Read a picture as upright RGB, its first frame if it has several; transparency is laid over white.

    Args:
        picture: A path, a data: URL, an encoded file's bytes, a file object in binary mode, a PIL image, or an array
            (h, w), (h, w, 3) or (h, w, 4) uint8. A file object is read from its beginning where it can be rewound.

    Returns:
        A picture in mode RGB, turned as its EXIF orientation says, in sRGB as its colour profile says. Grey values of
        more than 8 bits, or as fractions, are brought to 8 bits by their range.

    Raises:
        ImageError: The picture is missing, empty, no picture, cut short, has a side over 16384 px, or grey values in a
            range that says nothing; the message names the file. Or `picture` is no `Picture`, or an address that would
            have to be fetched.
    """
    check_picture(picture)
    return read_colours_and_alpha(picture, "picture")[0]


def read_colours_and_alpha(picture: Picture, noun: str) -> tuple[Image.Image, Image.Image | None]:
    """Read a picture as `read_picture` does, and its alpha in mode L, upright, too; None if it has no transparency.

    Args:
        picture: What a picture can be read from.
        noun: What a message calls it: "picture" or "mask".

    Raises:
        ImageError: As `read_picture`.
    """
    name = called(picture, noun)
    try:
        image = _open(picture, name, noun)
        if max(image.size) > MAX_SIDE or min(image.size) < 1:
            raise ImageError(
                f"{name} is {image.width}x{image.height}; sides of 1 to {MAX_SIDE} px are possible, "
                "make it smaller first"
            )
        return _to_rgb(ImageOps.exif_transpose(image), name)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name} cannot be decoded, it may be cut short: {error}") from error


def _open(picture: Picture, name: str, noun: str) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    try:
        return Image.open(io.BytesIO(read_encoded(picture, noun)))
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


def _to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Return an upright picture in sRGB, by its colour profile if it has one, over white; and its alpha."""
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_to_bytes(np.asarray(image), image.format, name)).convert("RGB"), None
    if not image.has_transparency_data:
        return _in_srgb(image, name), None
    alpha = image.convert("RGBA").getchannel("A")
    colours = _in_srgb(image.convert("RGB") if image.mode != "LA" else image.convert("L"), name)
    return Image.composite(colours, Image.new("RGB", image.size, "white"), alpha), alpha


_WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_PROFILE_MODES = {"1": "L", "P": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
"""The modes that others are brought to before a profile applies, which is of the colours that the file holds."""


def _to_bytes(values: NDArray[Any], file_format: str | None, name: str) -> NDArray[np.uint8]:
    """Return grey values as bytes, by their range: Pillow's own conversion would cut off all beyond 255."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65535):  # also what is no number
        raise ImageError(
            f"{name} has grey values from {low:g} to {high:g}; 0 to 1, 255 and 65535 are known, so bring it to 8 bits"
        )
    if values.dtype.kind == "f" and high <= 1:
        return (values * 255 + 0.5).astype(np.uint8)
    if values.dtype.itemsize == 2 or file_format == "PNG" or high > 255:  # PNG has 16 bits, or Pillow reads 8
        return (values.astype(np.float64) * (255 / 65535) + 0.5).astype(np.uint8)
    return (values + (0.5 if values.dtype.kind == "f" else 0)).astype(np.uint8)


def _in_srgb(image: Image.Image, name: str) -> Image.Image:
    """Return a picture without transparency in sRGB; one without a profile is taken for sRGB."""
    image = image.convert(_PROFILE_MODES.get(image.mode, image.mode))
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        made = ImageCms.profileToProfile(
            image, opened, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.warning("%s has a colour profile that does not fit it (%s); its colours are taken for sRGB", name, error)
        return image.convert("RGB")
    assert made is not None
    return made

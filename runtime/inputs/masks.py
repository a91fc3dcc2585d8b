"""Reads a mask: whatever a caller marks a picture with, one bool per pixel comes out, True where it is edited."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from ...engine.errors import RequestError
from ...engine.sizes import Size
from .pictures import Picture, is_picture, read_colours_and_alpha
from .placement import Box
from .sources import check_encoded, is_encoded

logger = logging.getLogger(__name__)

EDIT_FROM = 128
"""The lowest grey value that marks, as diffusers cuts masks; alpha marks below it."""

MaskSource = Union[Picture, NDArray[np.bool_], Box, Sequence[Box]]
"""The forms that a mask may come in; `read_mask` describes them."""


def check_mask(source: object) -> None:
    """Raise an error unless this is of a type that a mask can be read from; nothing is read.

    Args:
        source: What `read_mask` takes.

    Raises:
        RequestError: It is of another type, or a box is empty, inverted, or not of four whole numbers.
        ImageError: It is an address, or a file that is open as text.
    """
    if isinstance(source, np.ndarray):
        if source.dtype == np.bool_ and source.ndim != 2:
            raise RequestError(f"a mask of bools must be of shape (h, w), this is {source.shape}")
        if source.dtype not in (np.bool_, np.uint8):
            raise RequestError(
                f"a mask's array must be bool (h, w), or uint8 as a picture is; this is {source.dtype} {source.shape}"
            )
    elif isinstance(source, (list, tuple)):
        _boxes(source)
    elif not is_picture(source):
        raise RequestError(
            "a mask must be a picture (a path, bytes, a file object, a data: URL, a PIL image, a uint8 array), "
            f"an array (h, w) of bools, or boxes (left, top, right, bottom), not {type(source).__name__}"
        )
    elif is_encoded(source):
        check_encoded(source, "mask")


def read_mask(source: MaskSource, size: Size) -> NDArray[np.bool_]:
    """Read which pixels of a picture are to be edited.

    A picture marks where it is white, from 128 on. One with transparency marks where alpha is below 128 instead,
    whatever its colours are, as OpenAI's masks do; transparency that is opaque everywhere is none.

    Args:
        source: A picture as `read_picture` takes it, an array (h, w) of bools (True marks), or a box or several in
            pixels, (left, top, right, bottom), half-open; what lies beyond the picture is cut off.
        size: The (width, height) of the picture that it marks, upright, in pixels.

    Returns:
        (height, width) bool, True where the picture is edited.

    Raises:
        RequestError: It is no mask, of another size, marks nothing, or a box lies wholly outside the picture.
        ImageError: A picture that cannot be read.
    """
    check_mask(source)
    if isinstance(source, (list, tuple)):
        mask, found = _from_boxes(source, size), ""
    elif isinstance(source, np.ndarray) and source.dtype == np.bool_:
        mask, found = source.copy(), "it has no True"
    else:
        mask, found = _from_picture(source)  # pyright: ignore[reportArgumentType]  # what is left of the union
    if mask.shape != (size[1], size[0]):
        raise RequestError(
            f"the mask is {mask.shape[1]}x{mask.shape[0]}, and the picture, upright, is {size[0]}x{size[1]}; "
            "bring the mask to the picture's size"
        )
    if not mask.any():
        raise RequestError(f"the mask marks nothing: {found}")
    if mask.all():
        logger.warning("the mask marks the whole picture, so nothing of it is kept")
    return mask


def _from_picture(source: Picture) -> tuple[NDArray[np.bool_], str]:
    """Return what a picture marks, and why it may be nothing."""
    colours, alpha = read_colours_and_alpha(source, "mask")
    if alpha is not None:
        values = np.asarray(alpha)
        if values.min() < 255:
            return values < EDIT_FROM, f"alpha below {EDIT_FROM} marks, and its least is {values.min()}"
    values = np.asarray(colours.convert("L"))
    return values >= EDIT_FROM, f"white marks, from {EDIT_FROM} on, and its brightest value is {values.max()}"


def _boxes(source: Sequence[Any]) -> list[Box]:
    """Return the boxes that one or several are given as. Raises RequestError for what is none."""
    several = not source or any(isinstance(one, (list, tuple, np.ndarray)) for one in source)
    boxes = [_box(one) for one in (source if several else [source])]
    if not boxes:
        raise RequestError("the mask marks nothing: there is no box in it")
    return boxes


def _box(box: Any) -> Box:
    try:
        left, top, right, bottom = (operator.index(side) for side in box)
    except (TypeError, ValueError):
        raise RequestError(
            f"a mask's box is four whole numbers of pixels, (left, top, right, bottom), not {box!r:.100}"
        ) from None
    if left >= right or top >= bottom:
        raise RequestError(
            f"the mask's box ({left}, {top}, {right}, {bottom}) is empty: it is (left, top, right, bottom), "
            "right beyond left and bottom beyond top"
        )
    return left, top, right, bottom


def _from_boxes(source: Sequence[Any], size: Size) -> NDArray[np.bool_]:
    width, height = size
    mask = np.zeros((height, width), np.bool_)
    for left, top, right, bottom in _boxes(source):
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            raise RequestError(
                f"the mask's box ({left}, {top}, {right}, {bottom}) lies outside the picture of {width}x{height} px"
            )
        mask[max(top, 0) : bottom, max(left, 0) : right] = True
    return mask

"""Puts pictures of two bundles beside each other, with what was asked for, their difference, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ..sheets import Cell, Column, Sheet, Table
from .metrics import psnr_db, ssim

TIMES = 8
"""The factor that the difference is drawn with."""
SMALLEST = 320
"""The pixels of the longer side up to which small pictures are enlarged, by whole numbers."""
LETTERS = 42
"""The width of a picture over the size of letters: sheets are looked at as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Holds two pictures of one size in mode RGB, and what they are called.

    Attributes:
        title: What is compared.
        asked: What was asked for, and how.
        heads: What the first and the second are.
        pictures: The first and the second.
        edited: The picture that was to be edited, None without one.
    """

    title: str
    asked: tuple[str, ...]
    heads: tuple[str, str]
    pictures: tuple[Image.Image, Image.Image]
    edited: Image.Image | None = None


def side_by_side(pair: Pair) -> Sheet:
    """Return a sheet of what was edited, the first picture, the second and their difference, in full size."""
    one, other = pair.pictures
    times = max(1, SMALLEST // max(one.size))
    change = np.asarray(other, np.int32) - np.asarray(one, np.int32)
    difference = Image.fromarray((128 + TIMES * change).clip(0, 255).astype(np.uint8))
    arrays = [np.asarray(picture) for picture in pair.pictures]
    found = f"PSNR {psnr_db(*arrays):.1f} dB, SSIM {ssim(*arrays):.4f}"
    largest = f"largest difference {np.abs(change).max()} of 255"
    shown = [
        (pair.heads[0], one, ""),
        (pair.heads[1], other, found),
        (f"the second less the first, {TIMES} times as strong; grey where they are equal", difference, largest),
    ]
    enlarged = (one.width * times, one.height * times)
    cells = [
        (head, Cell(picture=picture.resize(enlarged, Image.Resampling.NEAREST), words=words))
        for head, picture, words in shown
    ]
    if pair.edited is not None:
        edited = ImageOps.contain(pair.edited.convert("RGB"), enlarged)
        cells.insert(0, ("the picture that was edited", Cell(picture=edited)))
    width = max(SMALLEST // 2, enlarged[0])
    note = (f"Each pixel is drawn as {times}x{times}.",) if times > 1 else ()
    return Sheet(
        title=pair.title,
        notes=(*pair.asked, *note),
        tables=(
            Table(
                columns=tuple(Column(head=head, width=width) for head, _ in cells),
                rows=(tuple(cell for _, cell in cells),),
            ),
        ),
        size=max(13, width // LETTERS),
    )

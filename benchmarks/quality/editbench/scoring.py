"""Decides whether an answer is the edit that was asked for, and how far it is from the known one.

**Success** is that the answer looks like the known one everywhere, and that words read right:

- A pixel is wrong if a channel of it is more than 40 of 255 away from the known answer, both averaged over 3x3 pixels.
  Any two colours of the small world are at least 76 apart in some channel, so another colour is always wrong; a
  contour that is a little softer is not.
- In no window of 16x16 pixels is more than a fifth wrong. The smallest thing of the world covers nearly half of such a
  window: one that is missing, left over, of another colour or in another place fails wherever it is. A contour
  that is a pixel off makes a tenth of a window wrong, and passes.
- The letters of a sign are read by comparing each with the whole alphabet, whether the instruction is about them or
  not: O and Q differ by less than a fifth of a window. (Not if the picture shall be pixelated.)

So what must stay counts as much as what must change, and neither doing nothing nor painting everything is ever a
success. The answer has to be unique for this: it is, for every task of the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .letters import ALPHABET, word_coverage
from .render import LIGHTS, STYLES, Pixels
from .samples import EditSample
from .scene import COLOURS, LETTER_SCALE, SIGN_MARGIN, Scene

TOLERANCE = 40
"""The levels of 255 that a pixel may be off in its worst channel."""
WINDOW = 16
"""The side of a window in pixels."""
ALLOWED = 0.2
"""The part of a window that may be wrong."""
LETTER_WIDTH = 5 * LETTER_SCALE
LETTER_STEP = 6 * LETTER_SCALE

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Holds how good one answer is.

    `wrong` is the worst window's part of wrong pixels; `read` the word on the sign, None if there is none to read.
    Squared errors are means over pixels and channels of 0..255: `inside` where the instruction lets pixels change,
    `outside` where they must stay, None where none must.
    """

    success: bool
    wrong: float
    read: str | None
    inside: float
    outside: float | None


def score(sample: EditSample, answer: Pixels) -> Score:
    """Compare an answer (H, W, 3) with the known one; raise ValueError if it is of another size."""
    target = sample.target()
    if answer.shape != target.shape:
        raise ValueError(f"the known answer is {target.shape}, this one is {answer.shape}")
    stays = sample.stays()
    after = sample.edit.after
    wrong = worst_window(wrong_pixels(answer, target))
    wanted = word_of(after)
    read = None if wanted is None else read_word(answer, after)
    return Score(
        success=wrong <= ALLOWED and read == wanted,
        wrong=wrong,
        read=read,
        inside=squared_error(answer, target, ~stays),
        outside=squared_error(answer, target, stays) if stays.any() else None,
    )


def squared_error(one: Pixels, other: Pixels, where: Mask) -> float:
    """Return the mean over channels and the pixels of `where`, of 0..255."""
    return float(np.square(one[where].astype(np.float32) - other[where]).mean())


def decibels(squared: float) -> float:
    """Return the PSNR of a mean squared error of 8-bit pixels, in dB; at most 99."""
    return float(10 * np.log10(255**2 / max(squared, 255**2 * 10**-9.9)))


def wrong_pixels(answer: Pixels, target: Pixels) -> Mask:
    """Return (H, W): which pixels are wrong.

    What is averaged over 3x3 pixels is the difference, with the picture's edge repeated.
    """
    padded = np.pad(answer.astype(np.int32) - target, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.abs(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]).max(axis=2) > 9 * TOLERANCE


def worst_window(wrong: Mask) -> float:
    """Return the largest part of wrong pixels in any window, wherever it lies."""
    sums = np.pad(wrong.astype(np.int32).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts = sums[WINDOW:, WINDOW:] - sums[:-WINDOW, WINDOW:] - sums[WINDOW:, :-WINDOW] + sums[:-WINDOW, :-WINDOW]
    return float(counts.max()) / WINDOW**2


def word_of(scene: Scene) -> str | None:
    """Return the word that can be read on the scene's sign."""
    return None if scene.sign is None or scene.style == "pixelate" else scene.sign.word


def read_word(picture: Pixels, scene: Scene) -> str:
    """Return what the scene's sign says in a picture: each letter is the one of the alphabet whose ink is nearest."""
    assert scene.sign is not None
    left, top, right, bottom = (side + margin for side, margin in zip(scene.sign_box(), (1, 1, -1, -1), strict=True))
    inset = SIGN_MARGIN - 1
    plate = picture[top + inset : bottom - inset, left + inset : right - inset].astype(np.float32)
    colours = np.array([COLOURS["white"], COLOURS[scene.sign.colour]], np.float32)
    white, colour = LIGHTS[scene.light](colours) if scene.style == "none" else STYLES[scene.style](colours)
    direction = colour - white
    ink = (plate - white) @ direction / (direction @ direction)
    return "".join(
        min(ALPHABET, key=lambda letter: _distance(ink[:, start : start + LETTER_WIDTH], letter))
        for start in range(0, len(scene.sign.word) * LETTER_STEP, LETTER_STEP)
    )


def _distance(ink: NDArray[np.floating], letter: str) -> float:
    return float(np.square(ink - word_coverage(letter, LETTER_SCALE)).sum())

"""Brings a mask to the size that its picture is edited at, and to what the denoiser keeps."""

from __future__ import annotations

import numpy as np
from einops import repeat
from numpy.typing import NDArray

from ...engine.components import PIXELS_PER_TOKEN
from ...engine.errors import RequestError
from ...engine.sizes import Grid
from .placement import Box, Placement

PIXELS_PER_LATENT = PIXELS_PER_TOKEN // 2
"""The side of a latent in pixels: a token packs 2 x 2 of them."""


def check_kept(mask: NDArray[np.bool_], placement: Placement) -> None:
    """Raise RequestError if a mask marks pixels that the picture's fit cuts away: they could not be edited.

    Args:
        mask: What is marked in the original that was placed, (height, width).
        placement: What was done to that original.
    """
    left, top, right, bottom = placement.kept_pixels
    marked = int(np.count_nonzero(mask))
    lost = marked - int(np.count_nonzero(mask[top:bottom, left:right]))
    if lost:
        raise RequestError(
            f"the mask marks {marked:,} pixels, and fit={placement.fit.value!r} cuts {lost:,} of them away: of "
            f"{placement.original[0]}x{placement.original[1]} it keeps ({left}, {top}, {right}, {bottom}); "
            "choose fit='resize' or fit='pad', or mark what is kept"
        )


def place_mask(mask: NDArray[np.bool_], placement: Placement) -> NDArray[np.bool_]:
    """Bring a mask to the size that its picture was brought to, the same way.

    A pixel of the result is marked if anything that it covers is: so every marked pixel can change, however thin it is,
    and what is marked too much is not pasted back. Padding is marked as the edge that it repeats is.

    Args:
        mask: What is marked in the original, (height, width).
        placement: What was done to that original.

    Returns:
        (height, width) bool, of `placement.size`.
    """
    left, top, right, bottom = placement.kept
    filled = placement.filled
    rows = _any_in(mask, top, bottom, filled[3] - filled[1])
    inner = _any_in(rows.T, left, right, filled[2] - filled[0]).T
    width, height = placement.size
    return np.pad(inner, ((filled[1], height - filled[3]), (filled[0], width - filled[2])), mode="edge")


def _any_in(mask: NDArray[np.bool_], start: float, stop: float, count: int) -> NDArray[np.bool_]:
    """Return whether anything is marked in each of `count` equal parts of the rows from `start` to `stop`."""
    edges = start + np.arange(count + 1) * ((stop - start) / count)
    first = np.clip(np.floor(edges[:-1] + 1e-6), 0, len(mask) - 1).astype(np.intp)
    last = np.clip(np.ceil(edges[1:] - 1e-6), first + 1, len(mask)).astype(np.intp)
    below = np.concatenate([mask, np.zeros_like(mask[:1])])  # so that the last part may end at the end
    return np.logical_or.reduceat(below, np.stack([first, last], axis=1).ravel(), axis=0)[::2]


def whole_latents(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark every latent whole of which a pixel is marked: 8 x 8 pixels.

    diffusers asks one pixel of each, the first, so that up to 7 marked pixels beside it are not edited, and a small
    mask may mark nothing.

    Args:
        mask: What is marked at the size that is edited, (height, width), multiples of 8.
    """
    side = PIXELS_PER_LATENT
    height, width = mask.shape
    latents = mask.reshape(height // side, side, width // side, side).any(axis=(1, 3))
    return latents.repeat(side, axis=0).repeat(side, axis=1)


def latent_keep(mask: NDArray[np.bool_], grid: Grid, channels: int) -> NDArray[np.float32]:
    """Return how much of each latent is kept: 1 minus the mask that diffusers' FluxKontextInpaintPipeline packs.

    It asks the first of the 8 x 8 pixels of a latent, as torch's nearest interpolation does, and packs the same for
    every channel. Apply `whole_latents` before, so that what is marked is edited.

    Args:
        mask: What is marked at the size that is edited, (16 rows, 16 columns).
        grid: The (rows, columns) of the edited picture in tokens.
        channels: The channels of a packed token: 4 times the VAE's.

    Returns:
        (rows * columns, channels) float32, 1 where the picture is kept and 0 where it is edited.
    """
    assert mask.shape == (grid[0] * PIXELS_PER_TOKEN, grid[1] * PIXELS_PER_TOKEN)
    kept = ~mask[::PIXELS_PER_LATENT, ::PIXELS_PER_LATENT]
    packed = repeat(kept, "(h p) (w q) -> (h w) (c p q)", p=2, q=2, c=channels // 4)
    return packed.astype(np.float32)


def bounds(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest (left, top, right, bottom) that holds all that is marked, in pixels, half-open."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

"""Defines what a request's references are: pictures, or latents of earlier results, one or several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from math import prod
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.errors import RequestError
from ...engine.sizes import Grid, Size, check_size, token_grid
from .choices import parse_choice
from .pictures import MAX_SIDE, Picture, check_picture
from .placement import Fit, Placement

MAX_REFERENCES = 16
"""The most references of a request: each adds its tokens to every step."""


class ReferenceMethod(str, Enum):
    """Says how several references lie beside the picture that is made; of one alone all say the same.

    Source: ComfyUI `comfy/ldm/flux/model.py`, `FluxKontextMultiReferenceLatentMethod` and `ImageStitch`.

    Attributes:
        OFFSET: All have index 1, and lie side by side in a mosaic that grows towards a square. It is ComfyUI's default
            for FLUX.1.
        INDEX: They have the indices 1, 2, 3 and so on, each from the first row and column.
        STITCH: They become one picture before they are encoded, from left to right, at the height of the first.
    """

    OFFSET = "offset"
    INDEX = "index"
    STITCH = "stitch"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latents:
    """Holds a picture as the flow makes it, to be the reference of the next request without the way through pixels.

    Attributes:
        tokens: The packed latents (n, channels) float32, as `Output.latents` has them.
        size: The (width, height) in pixels of the picture that they decode to.
        image: That picture, which an edit with a mask is pasted on; without it there is no mask.

    Raises:
        RequestError: The tokens are no finite float array of the size's tokens, or the picture is no PIL image in mode
            RGB of that size.
    """

    tokens: NDArray[np.float32] = field(repr=False)
    size: Size
    image: Image.Image | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        if self.image is not None and getattr(self.image, "mode", "") != "RGB":
            found = self.image.mode if isinstance(self.image, Image.Image) else type(self.image).__name__
            raise RequestError(f"the picture of latents is a PIL image in mode RGB, not {found}")
        if self.image is not None and self.image.size != self.size:
            raise RequestError(
                f"latents of {self.size[0]}x{self.size[1]} do not decode to a picture of {self.image.width}x"
                f"{self.image.height}"
            )
        tokens, wanted = self.tokens, prod(token_grid(self.size))
        if not isinstance(tokens, np.ndarray) or tokens.dtype.kind != "f" or tokens.ndim != 2 or len(tokens) != wanted:
            found = f"{tokens.dtype} {tokens.shape}" if isinstance(tokens, np.ndarray) else type(tokens).__name__
            raise RequestError(
                f"latents of {self.size[0]}x{self.size[1]} are a float array ({wanted}, channels), not {found}"
            )
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite
            tokens = np.ascontiguousarray(tokens, np.float32)
        if not np.isfinite(tokens).all():
            raise RequestError("latents must be finite in float32, and these have NaN or infinity")
        object.__setattr__(self, "tokens", tokens)


ReferenceSource = Union[Picture, Latents]
"""The forms that a reference may come in: those of a picture, or latents."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Holds a reference that is ready: `pixels` (H, W, 3) uint8 of its size, or `latents` (m, channels) float32."""

    pixels: NDArray[np.uint8] | None = None
    latents: NDArray[np.float32] | None = None
    placement: Placement

    @property
    def grid(self) -> Grid:
        return token_grid(self.placement.size)

    @cached_property
    def key(self) -> bytes:
        """A hash of the pixels and their shape; latents have none."""
        assert self.pixels is not None
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).digest()

    @classmethod
    def carried(cls, latents: Latents, channels: int) -> Reference:
        """Return the reference that latents are. Raises RequestError for those of a model of other channels."""
        if latents.tokens.shape[1] != channels:
            raise RequestError(
                f"latents of {latents.tokens.shape[1]} channels are of another model: this one's have {channels}"
            )
        placement = Placement(original=latents.size, size=latents.size, fit=Fit.RESIZE, carried=True)
        return cls(latents=latents.tokens, placement=placement)


def parse_method(method: ReferenceMethod | str) -> ReferenceMethod:
    """Return the method that "offset", "index" or "stitch" stands for. Raises RequestError for anything else."""
    if not isinstance(method, str):
        raise RequestError(
            "references says how several pictures lie, offset, index or stitch, and the pictures themselves are a list "
            f"in the place of the one that is edited; it is not {type(method).__name__}"
        )
    return parse_choice(ReferenceMethod, "references", method)


def each_source(image: Any) -> tuple[ReferenceSource, ...]:
    """Return the references of a request in a tuple: those of a list or tuple, the one that there is, or none.

    Raises:
        ImageError: One is of a type that no picture can be read from.
        RequestError: There are more than 16, or a list of none.
    """
    if image is None:
        return ()
    sources = tuple(image) if isinstance(image, (list, tuple)) else (image,)
    if not sources:
        raise RequestError("a list of references must hold one at least; without any it is text to image: leave it out")
    if len(sources) > MAX_REFERENCES:
        raise RequestError(f"a request takes up to {MAX_REFERENCES} references, not {len(sources)}")
    for source in sources:
        if not isinstance(source, Latents):
            check_picture(source)
    return sources


def stitch(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return RGB pictures side by side, from left to right, each brought to the height of the first with LANCZOS.

    Raises:
        RequestError: Together they would be wider than 16384 px, which the height of a flat one alone may make them.
    """
    height = pictures[0].height
    widths = [max(1, round(one.width * height / one.height)) for one in pictures]
    if sum(widths) > MAX_SIDE:
        raise RequestError(
            f"side by side, at the height of the first, these {len(pictures)} pictures are {sum(widths):,}x{height}; "
            f"sides of up to {MAX_SIDE} px are possible: make them smaller, or choose offset or index"
        )
    scaled = [
        one if one.height == height else one.resize((width, height), _LANCZOS)
        for one, width in zip(pictures, widths, strict=True)
    ]
    return Image.fromarray(np.concatenate([np.asarray(one) for one in scaled], axis=1))


_LANCZOS = Image.Resampling.LANCZOS

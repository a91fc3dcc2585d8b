"""Defines a turn: one edit of a session, with what made it and what the next one can begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..engine.errors import RequestError
from ..engine.sizes import Size
from .inputs.references import Latents
from .outputs.picture_file import write_pictures
from .outputs.provenance import Signing
from .outputs.result import Result

PIXEL_BYTES = 4
"""The bytes of a pixel in Pillow's memory."""


class Carry(str, Enum):
    """Says as what a turn takes the result that it edits.

    Attributes:
        LATENTS: As the latents that the turn before ended with: nothing is decoded, rounded and encoded in between.
        PIXELS: As its picture, which every other tool has.
    """

    LATENTS = "latents"
    PIXELS = "pixels"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """Holds one edit of a session.

    Attributes:
        number: 1, 2 and so on, in the order in which the turns were made.
        parent: The number of the turn whose result it edits, 0 for the session's picture.
        request: What it takes to make it again, as `Result.request` says.
        carry: As what it took its parent's result.
        reason: Why it took pixels where latents are what the session carries; "" otherwise.
        size: The (width, height) in pixels that it was made at.
        image: The picture that came of it, None once it was let go.
        latents: Its packed latents (n, channels) float32, None if they are not its picture's, or were let go.
    """

    number: int
    parent: int
    request: Mapping[str, Any]
    carry: Carry
    reason: str
    size: Size
    image: Image.Image | None = field(repr=False)
    latents: NDArray[np.float32] | None = field(repr=False)

    @classmethod
    def of(cls, result: Result, number: int, parent: int, carry: Carry, reason: str) -> Turn:
        """Return the turn that a result of one picture is."""
        (output,) = result.outputs
        return cls(
            number=number,
            parent=parent,
            request=result.request(output),
            carry=carry,
            reason=reason,
            size=result.size,
            image=output.image,
            latents=output.latents if output.image.size == result.size else None,
        )

    @property
    def prompt(self) -> str:
        return str(self.request["prompt"])

    @property
    def seed(self) -> int | None:
        return self.request["seed"]

    @property
    def size_bytes(self) -> int:
        """The bytes in memory of its picture and its latents."""
        picture = 0 if self.image is None else PIXEL_BYTES * self.image.width * self.image.height
        return picture + (0 if self.latents is None else self.latents.nbytes)

    def picture(self) -> Image.Image:
        """Return the picture that came of it. Raises RequestError if it was let go."""
        if self.image is None:
            raise RequestError(
                f"turn {self.number} was let go to stay within the session's memory: its prompt and seed are known, "
                "its picture is not; begin the session with more kept_bytes"
            )
        return self.image

    def as_reference(self) -> Latents | None:
        """Return its latents with their picture, None if a reference can only be its picture."""
        if self.latents is None or self.image is None:
            return None
        return Latents(tokens=self.latents, size=self.size, image=self.image)

    def record(self) -> dict[str, Any]:
        """Return what is known of it beside its picture and latents, as values that JSON can hold."""
        return {
            "number": self.number,
            "parent": self.parent,
            "carry": self.carry.value,
            "reason": self.reason,
            "size": list(self.size),
            "request": dict(self.request),
        }

    def describe(self) -> str:
        """Say the turn in one line."""
        how = "" if not self.reason else f", from pixels: {self.reason}"
        return f"{self.number} (of {self.parent}) {self.prompt!r}, seed {self.seed}, {self.size[0]}x{self.size[1]}{how}"


def save_turn(turn: Turn, chain: Sequence[Turn], path: Path | str, signing: Signing | None = None) -> Path:
    """Write a turn's picture, whole or not at all, with its request and those of the turns before it.

    Args:
        turn: The turn.
        chain: The turns from the session's picture to it.
        path: The file to write, whose suffix chooses the format. Missing folders are made.
        signing: Who signs it, and what the chain began with; None for nobody.

    Returns:
        The file.

    Raises:
        RequestError: No file can be made there, or the turn's picture was let go.
        ProvenanceError, ImageError: It cannot be signed.
    """
    path, image = Path(path), turn.picture()
    request = {**turn.request, "chain": [dict(one.request) for one in chain[:-1]]}
    write_pictures([(image, request, path)], signing)
    return path

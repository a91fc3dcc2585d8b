"""Says which LoRA files a user wants, and how strong."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError

MAX_SCALE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraChoice:
    """Names a LoRA file and the scale that its changes get.

    Attributes:
        path: The file; text becomes a path.
        scale: What all its changes are multiplied by, 1 for as it was trained.

    Raises:
        OptionError: The scale is not a number between -100 and 100, or is 0.
    """

    path: Path | str
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not (math.isfinite(self.scale) and 0 < abs(self.scale) <= MAX_SCALE):
            raise OptionError(
                f"the scale of {self.path} is {self.scale}; it must be a number between -{MAX_SCALE:g} and "
                f"{MAX_SCALE:g} other than 0"
            )

    @classmethod
    def parse(cls, text: str) -> LoraChoice:
        """Return what FILE or FILE:SCALE says; a file whose whole name has the colon is taken as it is.

        Raises:
            OptionError: What follows the last colon is no scale.
        """
        path, colon, scale = text.rpartition(":")
        if not colon or Path(text).exists():
            return cls(path=Path(text))
        try:
            return cls(path=Path(path), scale=float(scale))
        except ValueError as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(f"{text} is no FILE:SCALE, such as style.safetensors:0.8") from None


def lora_choices(given: Iterable[LoraChoice | tuple[Path | str, float] | Path | str]) -> tuple[LoraChoice, ...]:
    """Return what a caller asks for, given as choices, as (file, scale) or as files."""
    made: list[LoraChoice] = []
    for one in given:
        if isinstance(one, LoraChoice):
            made.append(one)
        elif isinstance(one, tuple):
            made.append(LoraChoice(path=Path(one[0]), scale=float(one[1])))
        else:
            made.append(LoraChoice(path=Path(one)))
    return tuple(made)

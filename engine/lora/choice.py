"""Says which LoRA files a user wants, and how strong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import OptionError

MAX_SCALE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraChoice:
    """Names a LoRA file and the scale that its changes get.

    Attributes:
        path: The file; text becomes a path.
        scale: What all its changes are multiplied by, 1 for as it was trained.

    Raises:
        OptionError: The scale is not a number between -100 and 100, or is 0, or the path is none.
    """

    path: Path | str
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, PathLike)) or not str(self.path) or "\0" in str(self.path):
            raise OptionError(f"{self.path!r} is no path of a LoRA file")
        object.__setattr__(self, "path", Path(self.path))
        if isinstance(self.scale, bool) or not isinstance(self.scale, Real):
            raise OptionError(f"the scale of {self.path} is {self.scale!r}, which is no number")
        if not 0 < abs(self.scale) <= MAX_SCALE:  # NaN is not
            raise OptionError(
                f"the scale of {self.path} is {self.scale}; it must be a number between -{MAX_SCALE:g} and "
                f"{MAX_SCALE:g} other than 0"
            )
        object.__setattr__(self, "scale", float(self.scale))

    @classmethod
    def parse(cls, text: str) -> LoraChoice:
        """Return what FILE or FILE:SCALE says; a file whose whole name has the colon is taken as it is.

        Raises:
            OptionError: What follows the last colon is no scale, or there is no name of a file.
        """
        path, colon, scale = text.rpartition(":")
        if not colon or os.path.exists(text):  # where Path.exists raises, this is False
            return cls(path=text)
        try:
            number = float(scale)
        except ValueError:
            raise OptionError(
                f"{text} is no FILE:SCALE, such as style.safetensors:0.8, and there is no file of that name"
            ) from None
        return cls(path=path, scale=number)


def lora_choices(given: Iterable[LoraChoice | tuple[Path | str, float] | Path | str]) -> tuple[LoraChoice, ...]:
    """Return what a caller asks for, given as choices, as (file, scale) or as files.

    Raises:
        OptionError: It is none of these, or a scale is none.
    """
    if isinstance(given, (str, bytes, PathLike, Mapping, LoraChoice)) or not isinstance(given, Iterable):
        raise OptionError(f"LoRAs are given as a list, such as [{given!r}] for one; {given!r} is none")
    return tuple(map(_choice, given))


def _choice(given: Any) -> LoraChoice:
    if isinstance(given, LoraChoice):
        return given
    if not isinstance(given, (tuple, list)):
        return LoraChoice(path=given)
    if len(given) != 2:
        raise OptionError(f"{given!r} is no (file, scale)")
    return LoraChoice(path=given[0], scale=given[1])

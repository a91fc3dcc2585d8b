"""Describes a LoRA that pictures were made with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedLora:
    """Describes a LoRA that pictures were made with.

    Attributes:
        name: The file's name.
        sha256: The hash of the file's bytes, in hexadecimal.
        scale: The scale that the user gave it.
    """

    name: str
    sha256: str
    scale: float

    def describe(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        return asdict(self)

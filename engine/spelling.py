"""Reads names that people spell with hyphens on a command line and with underscores in Python."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from .errors import OptionError

Name = TypeVar("Name", bound=Enum)


class Spelled(str, Enum):
    """Holds names that are shown in one spelling, and read with hyphens or underscores, in capitals or not."""

    @classmethod
    def _missing_(cls, value: object) -> Spelled | None:
        return next((one for one in cls if isinstance(value, str) and _plain(one.value) == _plain(value)), None)


def _plain(text: str) -> str:
    return text.strip().lower().replace("-", "_")


def parse_name(names: type[Name], what: str, value: object) -> Name:
    """Return the member of an enumeration that a value is, or names. Raises OptionError, listing them, for others."""
    try:
        return names(value)
    except ValueError:
        allowed = ", ".join(str(one.value) for one in names)
        raise OptionError(f"{what} must be one of {allowed}, not {value!r}") from None

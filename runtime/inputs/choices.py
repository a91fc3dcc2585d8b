"""Parses words that stand for one of a few choices."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from ...engine.errors import RequestError

Choice = TypeVar("Choice", bound=Enum)


def parse_choice(choices: type[Choice], name: str, value: object) -> Choice:
    """Return the member of an enumeration that a value is, or names. Raises RequestError, listing them, for others."""
    try:
        return choices(value)
    except ValueError:
        allowed = ", ".join(choice.value for choice in choices)
        raise RequestError(f"{name} must be one of {allowed}, not {value!r}") from None

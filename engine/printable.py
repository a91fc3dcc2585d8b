"""Makes text from elsewhere fit for a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def python_escape(character: str) -> str:
    r"""Return a character as Python writes it in a string: `\x1b`."""
    return character.encode("unicode_escape").decode()


def json_escape(character: str) -> str:
    r"""Return a character as JSON writes it in a string: `\u001b`."""
    return f"\\u{ord(character):04x}"


def printable(text: str, escape: Callable[[str], str] = python_escape) -> str:
    """Return a text with its control characters as escapes: they could move the cursor or hide words.

    So are halves of surrogate pairs, which names of files in another encoding have, and which no file can hold.

    Line breaks and tabs stay; so do letters of every script, but not what reverses their direction.
    """
    return _CONTROL.sub(lambda found: escape(found[0]), text)


def printable_line(text: str) -> str:
    """Return a text as `printable` does, on one line: line breaks and tabs are escapes, too."""
    return re.sub("[\n\t]", lambda found: python_escape(found[0]), printable(text))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s beside any number but 1: "1 plan", "2,048 plans"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

"""Reads the JSON files that this project writes, at one border: whatever is wrong with one ends as an error in words.

Fields have ranges, so that what is read can be computed with: no number is negative, endless or of a million digits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

Parsed = TypeVar("Parsed")

_PRINTABLE = r"\A[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]*\Z"

TEXT_LENGTH = 4096
Text = Annotated[str, Meta(max_length=TEXT_LENGTH, pattern=_PRINTABLE)]
"""A text for people, without characters that control a terminal."""
Place = Annotated[str, Meta(min_length=1, max_length=1024, pattern=_PRINTABLE)]
"""A file's path relative to its bundle."""
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0, le=1 << 62)]
"""A number of bytes, parameters or layers."""
Extent = Annotated[int, Meta(ge=1, le=1 << 20)]
"""A dimension of a network: a width, a vocabulary."""
Layers = Annotated[int, Meta(ge=1, le=1024)]
"""A number of layers or blocks."""
Fraction = Annotated[float, Meta(ge=-16.0, le=16.0)]
"""A constant of a network that is near 1, or of a schedule."""
Positive = Annotated[float, Meta(gt=0.0, le=1e12)]


def read_json(data: bytes, kind: type[Parsed], fail: Callable[[str], Exception]) -> Parsed:
    """Return what a JSON document says.

    Args:
        data: The document.
        kind: The type that it must be of.
        fail: Makes the error that is raised for any other document, from the reason in words.
    """
    try:
        return msgspec.json.decode(data, type=kind, strict=False)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise fail(_reason(error)) from None


def read_json_file(
    path: Path,
    kind: type[Parsed],
    *,
    at_most: int,
    unread: Callable[[str], Exception],
    fail: Callable[[str], Exception],
) -> Parsed:
    """Return what a file's JSON document says.

    Args:
        path: The file.
        kind: The type that the document must be of.
        at_most: The bytes of the largest file that is read.
        unread: Makes the error that is raised if the file cannot be read, from the reason in words.
        fail: Makes the one for any other document, as for `read_json`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(at_most + 1)
    except OSError as error:
        raise unread(error.strerror or str(error)) from error
    if len(data) > at_most:
        raise fail(f"it has more than {at_most:,} bytes")
    return read_json(data, kind, fail)


def convert_json(value: Any, kind: type[Parsed], fail: Callable[[str], Exception]) -> Parsed:
    """Return a part of a decoded document as `kind`; `fail` makes the error, as for `read_json`."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise fail(_reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)[:500]

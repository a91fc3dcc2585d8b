"""Reads the bytes of an encoded picture from wherever a caller has them: a path, bytes, a file object, a data: URL."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeGuard, Union, runtime_checkable
from urllib.parse import unquote_to_bytes

from ...engine.errors import ImageError, KontextError

MAX_URL_CHARACTERS = 128 << 20
"""The longest data: URL in characters, 96 MiB of a file in base64: a longer one is a mistake or an attack."""
MAX_NAME_CHARACTERS = 300
"""The longest name that a message quotes in full: a text may be a whole file in base64."""

_DATA = re.compile(r"\s*data:", re.IGNORECASE)
_ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PATH_OF_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
"""The pattern of an address that became a path, as the command line's arguments do: a path has no two slashes."""


@runtime_checkable
class BinaryFile(Protocol):
    """Describes a file object that is open in binary mode, or whatever else gives bytes when it is read."""

    def read(self, /) -> bytes:
        """Return all that is left of it."""
        ...


EncodedPicture = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, BinaryFile]
"""A path, a data: URL, an encoded file's bytes, or a file object that gives them."""


def is_encoded(source: object) -> TypeGuard[EncodedPicture]:
    """Return whether this is of a type that an encoded picture can be read from."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview, BinaryFile))


def check_encoded(source: EncodedPicture, noun: str) -> None:
    """Raise ImageError for what is of a right type and still holds no picture; nothing is read.

    Args:
        source: Where the bytes are.
        noun: What a message calls it: "picture" or "mask".
    """
    if isinstance(source, io.TextIOBase):
        raise ImageError(f"{called(source, noun)} is a file that is open as text; open it in binary mode, as 'rb'")
    address = _address(source)
    if address:
        instead = "give its path" if address[1].lower() == "file" else "download it, and give its path or its bytes"
        raise ImageError(f"the {noun} is an address ({address[1].lower()}://...), and nothing is fetched: {instead}")
    if isinstance(source, str) and _DATA.match(source):
        if len(source) > MAX_URL_CHARACTERS:
            raise ImageError(
                f"the {noun} is a data: URL of {len(source):,} characters; up to {MAX_URL_CHARACTERS:,} are possible: "
                "give the file's path or bytes"
            )
        if "," not in source:
            raise ImageError(f"the {noun} is a data: URL without a comma; it must be data:image/png;base64,...")


def _address(source: EncodedPicture) -> re.Match[str] | None:
    if isinstance(source, str):
        return _ADDRESS.match(source)
    path = os.fspath(source) if isinstance(source, os.PathLike) else ""
    return _PATH_OF_ADDRESS.match(path) if isinstance(path, str) and not os.path.exists(path) else None


def called(source: object, noun: str) -> str:
    """Return what a message calls a source: "picture cat.png" where it has a name, else "the picture"."""
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    if isinstance(name, str) and _DATA.match(name):
        return f"the {noun}"
    if not isinstance(name, (str, os.PathLike)) or not isinstance(text := os.fspath(name), str):
        return f"the {noun}"
    return f"{noun} {text if len(text) <= MAX_NAME_CHARACTERS else f'{text[:MAX_NAME_CHARACTERS]}...'}"


def file_of(source: object) -> Path | None:
    """Return the absolute path that a source is read from: its own, or an open file's. None for what is in memory."""
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    if not isinstance(name, (str, os.PathLike)) or not isinstance(text := os.fspath(name), str) or _DATA.match(text):
        return None
    return Path(text).absolute()


def read_encoded(source: EncodedPicture, noun: str) -> bytes:
    """Read all bytes of an encoded picture; a file object that can be rewound is read from its beginning.

    Args:
        source: Where the bytes are.
        noun: What a message calls it: "picture" or "mask".

    Raises:
        ImageError: Nothing can be read there, or nothing is there.
    """
    check_encoded(source, noun)
    name = called(source, noun)
    try:
        data = _read(source, noun)
    except (KontextError, MemoryError):
        raise
    except Exception as error:  # a name that no file can have, and whatever a foreign file object raises
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ImageError(f"{name} cannot be read: {reason}") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"{name} cannot be read: its read() gave {type(data).__name__}, not bytes; give its bytes")
    if not len(data):
        raise ImageError(f"{name} is empty (0 bytes)")
    return bytes(data)


def _read(source: EncodedPicture, noun: str) -> Any:
    """Return what a source gives, which of a file object may be anything."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return source
    if isinstance(source, str) and _DATA.match(source):
        return _decoded(source, noun)
    if isinstance(source, (str, os.PathLike)):
        return Path(os.fsdecode(source)).read_bytes()
    with suppress(AttributeError, OSError):  # a pipe, or a response from a network
        source.seek(0)  # pyright: ignore[reportAttributeAccessIssue]
    return source.read()


def _decoded(url: str, noun: str) -> bytes:
    """Return what a data: URL (RFC 2397) holds, percent-encoded or in base64, whose padding may be left out."""
    header, _, text = url.partition(",")
    data = unquote_to_bytes(text.strip())
    if not header.rstrip().lower().endswith(";base64"):
        return data
    digits = data.translate(None, b" \t\r\n\f").rstrip(b"=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(
            f"the {noun} is a data: URL that is not in base64 as it says ({error}); it may be cut short"
        ) from error

"""Keeps pictures that have an address, for a while and within a number of bytes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cachetools import TTLCache

from .options import Keeping
from .refusals import Refusal
from .state import Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Holds an encoded picture and its media type."""

    data: bytes = field(repr=False)
    media_type: str


class Results:
    """Keeps encoded pictures by names that nobody can guess.

    Args:
        keeping: How long, and how many bytes. Beyond them the oldest go.
    """

    def __init__(self, keeping: Keeping) -> None:
        self._kept: TTLCache[str, Stored] = TTLCache(
            keeping.result_bytes, keeping.result_seconds, getsizeof=lambda stored: len(stored.data)
        )
        self._seconds = keeping.result_seconds

    def put(self, stored: Stored) -> str:
        """Keep a picture, and return its name.

        Raises:
            Refusal: It is larger than everything that may be kept.
        """
        name = secrets.token_urlsafe(24)
        try:
            self._kept[name] = stored
        except ValueError:
            raise _too_large(stored) from None
        return name

    def get(self, name: str) -> Stored:
        """Return a picture. Raises Refusal (404) if there is none of that name any more."""
        stored = self._kept.get(name)
        if stored is None:
            raise _no_picture(self._seconds)
        return stored

    @property
    def size_bytes(self) -> float:
        """The bytes of all pictures."""
        return self._kept.currsize

    def expire(self) -> None:
        """Let go of what was kept long enough."""
        self._kept.expire()


class FiledResults:
    """Keeps encoded pictures as `Results` does, in files that other processes read, too.

    Args:
        keeping: How long, and how many bytes. Beyond them the oldest go.
        shelf: Where they lie.
    """

    def __init__(self, keeping: Keeping, shelf: Shelf) -> None:
        self._keeping, self._shelf = keeping, shelf

    def put(self, stored: Stored) -> str:
        """Keep a picture, and return its name.

        Raises:
            Refusal: It is larger than everything that may be kept.
        """
        if len(stored.data) > self._keeping.result_bytes:
            raise _too_large(stored)
        name = secrets.token_urlsafe(24)
        self._shelf.write(name, stored.media_type.encode() + b"\n" + stored.data)
        self.expire()
        return name

    def get(self, name: str) -> Stored:
        """Return a picture. Raises Refusal (404) if there is none of that name any more."""
        found = self._shelf.read(name, self._keeping.result_seconds)
        if found is None:
            raise _no_picture(self._keeping.result_seconds)
        media_type, _, data = found.partition(b"\n")
        return Stored(data=data, media_type=media_type.decode())

    @property
    def size_bytes(self) -> float:
        """The bytes of all pictures."""
        return self._shelf.size_bytes

    def expire(self) -> None:
        """Let go of what was kept long enough, and of what is too much."""
        self._shelf.trim(self._keeping.result_seconds, size_bytes=self._keeping.result_bytes)


def _too_large(stored: Stored) -> Refusal:
    return Refusal(
        f"the picture has {len(stored.data):,} bytes, more than are kept for addresses; ask for b64_json",
        param="response_format",
    )


def _no_picture(seconds: float) -> Refusal:
    return Refusal(f"there is no such picture; each is kept for {seconds:g} s, in bounded memory", status=404)

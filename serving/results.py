"""Keeps pictures that have an address, for a while and within a number of bytes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cachetools import TTLCache

from .options import Keeping
from .refusals import Refusal


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
            raise Refusal(
                f"the picture has {len(stored.data):,} bytes, more than are kept for addresses; ask for b64_json",
                param="response_format",
            ) from None
        return name

    def get(self, name: str) -> Stored:
        """Return a picture. Raises Refusal (404) if there is none of that name any more."""
        stored = self._kept.get(name)
        if stored is None:
            raise Refusal(
                f"there is no such picture; each is kept for {self._seconds:g} s, in bounded memory", status=404
            )
        return stored

    @property
    def size_bytes(self) -> float:
        """The bytes of all pictures."""
        return self._kept.currsize

    def expire(self) -> None:
        """Let go of what was kept long enough."""
        self._kept.expire()

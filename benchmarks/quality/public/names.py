"""Makes names of files and folders of words from elsewhere."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

MAX_NAME = 80
_HASHED = re.compile(r"-[0-9a-f]{12}\Z")


def file_names(words: Iterable[str], *, reserved: Sequence[str] = ()) -> dict[str, str]:
    """Return for each text a name of letters, digits, dots, hyphens and underscores, unlike all others'.

    Texts whose names would be alike, also where capitals do not count, or that are reserved, empty, long or look like a
    name with a hash, get the beginning of their hash behind them. A text's name depends on the others, not on their
    order.

    Args:
        words: The texts; those that are given more than once count once.
        reserved: The names, in small letters, that none gets.
    """
    plain = {text: re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") for text in dict.fromkeys(words)}
    counts = Counter(name.lower() for name in plain.values())

    def stays(name: str) -> bool:
        alone = counts[name.lower()] == 1 and name.lower() not in reserved
        return alone and 0 < len(name) <= MAX_NAME and not _HASHED.search(name.lower())

    return {text: name if stays(name) else f"{name[:MAX_NAME] or 'item'}-{_hash(text)}" for text, name in plain.items()}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]

"""Writes and reads sizes in bytes as people do."""

from __future__ import annotations

import re

from .errors import OptionError


def human_bytes(count: float) -> str:
    """Return a size for people: 1536 is "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def parse_bytes(text: str) -> int:
    """Read a size: "2GiB", "2G" and "2 gb" are 2 * 1024^3; raise OptionError for what is no such size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG])i?B?", text, re.IGNORECASE)
    if match is None:
        raise OptionError(f"a size in memory is written like 512MiB or 2GiB, not {text!r}")
    return int(float(match[1]) * 1024 ** " KMG".index(match[2].upper()))

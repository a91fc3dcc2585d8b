"""Chooses letters for what is drawn, and breaks texts into lines of a width."""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from pathlib import Path
from typing import Union

from PIL import ImageFont

from ..engine.printable import printable_line

INK, QUIET = "#1e1e1e", "#666666"
"""The colours of what is read first, and of what is read beside it."""
MAX_CHARACTERS = 1200
"""The longest text that is drawn whole: a prompt may be a page."""
Font = Union[ImageFont.FreeTypeFont, ImageFont.ImageFont]


@functools.cache
def font_file() -> Path | None:
    """Return the file of DejaVu Sans that matplotlib brings, None without matplotlib."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return path if path.is_file() else None


@functools.cache
def font(size: int) -> Font:
    """Return a font of so many pixels: DejaVu Sans where it is, else the one that Pillow has, which knows ASCII."""
    path = font_file()
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def drawable(text: str) -> str:
    """Return a text in one line and in letters that there are: without DejaVu Sans, accents and other scripts go."""
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS].rstrip() + " ..."
    text = printable_line(" ".join(text.split()))
    if font_file() is not None:
        return text
    letters = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return letters.encode("ascii", "replace").decode()


def wrap(text: str, width: int, size: int) -> tuple[str, ...]:
    """Return a text's lines of at most `width` pixels, broken between words, and within words that are longer."""
    face, lines, line = font(size), [], ""
    for word in drawable(text).split():
        longer = f"{line} {word}" if line else word
        if face.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        while len(word) > 1 and face.getlength(word) > width:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or face.getlength(word[:n]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    return (*lines, line) if line else tuple(lines)

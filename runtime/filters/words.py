"""Refuses prompts that hold a word of a list."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ...engine.errors import OptionError
from .interface import ALLOWED, Content, Stage, Verdict

MAX_LIST_BYTES = 16 << 20
"""The largest list in bytes: a larger one is another file."""
_WORD = re.compile(r"[^\W_]+")

Words = tuple[str, ...]


class WordList:
    """Refuses prompts in which a word, or words in a row, of a list stand.

    Whole words are compared: runs of letters and digits. Case, accents, ligatures, full-width letters and invisible
    characters make no difference. It does not know other forms of a word, letters of other scripts that look the same,
    digits that stand for letters, or letters that are spread; and in scripts without spaces a run of letters is one
    word.

    Args:
        entries: The words.
        name: The name in messages.

    Raises:
        OptionError: There is no entry, or one holds neither letter nor digit.
    """

    def __init__(self, entries: Iterable[str], *, name: str = "words") -> None:
        self.name, self.stages = name, frozenset({Stage.PROMPT})
        self._entries: set[Words] = set()
        for number, entry in enumerate(entries, 1):
            words = fold_words(entry)
            if not words:
                raise OptionError(f"{name}: entry {number} holds neither letter nor digit, so no prompt has it")
            self._entries.add(words)
        if not self._entries:
            raise OptionError(f"{name}: the list holds no word, so it refuses nothing")
        self._lengths = sorted({len(words) for words in self._entries})

    @classmethod
    def read(cls, path: Path | str) -> WordList:
        """Read a list from a file: UTF-8, an entry per line; empty lines and those that begin with # are left out.

        Raises:
            OptionError: The file cannot be read, is no text, or its list is none.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_LIST_BYTES + 1)
            text = data.decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise OptionError(f"{path} cannot be read as a list of words in UTF-8: {error}") from error
        if len(data) > MAX_LIST_BYTES:
            raise OptionError(f"{path} is larger than {MAX_LIST_BYTES >> 20} MiB, the most that a list of words may be")
        lines = (line.strip() for line in text.splitlines())
        return cls((line for line in lines if line and not line.startswith("#")), name=path.name)

    def check(self, content: Content) -> Verdict:
        words = fold_words(content.prompt)
        for length in self._lengths:
            for start in range(len(words) - length + 1):
                if words[start : start + length] in self._entries:
                    return Verdict(allowed=False, reason="it holds a word of the list")
        return ALLOWED


def fold_words(text: str) -> Words:
    """Return the words of a text as they are compared: without case, accents and invisible characters.

    Source: Unicode's compatibility decomposition (UAX 15) and case folding; what is invisible has category Cf.
    """
    visible = "".join(one for one in text if unicodedata.category(one) != "Cf")
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", visible).casefold())
    return tuple(_WORD.findall("".join(one for one in folded if not unicodedata.combining(one))))

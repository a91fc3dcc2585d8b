"""Makes filters from what a command line says: `words:FILE`, `onnx:PATH`, `command:PROGRAM ARGUMENTS`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import OptionError
from .classifier import ClassifierOptions, ImageClassifier
from .command import SECONDS, CommandFilter
from .interface import ContentFilter
from .words import WordList

KINDS = "words:FILE, onnx:PATH or command:'PROGRAM ARGUMENTS'"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterDetails:
    """Says what holds for all filters of a command line, where nothing else says it.

    Attributes:
        labels: The labels of classifiers that refuse; none for what their files say.
        threshold: The score from which on they do; None for what their files say.
        seconds: The seconds that a command has.
    """

    labels: tuple[str, ...] = ()
    threshold: float | None = None
    seconds: float = SECONDS


def parse_filters(texts: Sequence[str], details: FilterDetails) -> tuple[ContentFilter, ...]:
    """Return the filters that texts stand for, in their order.

    Raises:
        OptionError: A text stands for none, its file cannot be used, or details are about a kind that is not there.
        MissingDependencyError: A classifier is asked for, and ONNX Runtime is not installed.
    """
    kinds = [text.partition(":")[0] for text in texts]
    if (details.labels or details.threshold is not None) and "onnx" not in kinds:
        raise OptionError("labels and a threshold are about a classifier; give one as --filter onnx:PATH")
    return tuple(_parse(text, details) for text in texts)


def absolute_filter(text: str) -> str:
    """Return a filter's text so that another process in another folder reads the same file or runs the same program.

    Of a command it is the program alone: what its arguments are, nobody knows.
    """
    kind, _, rest = text.partition(":")
    if kind in ("words", "onnx") and rest.strip():
        return f"{kind}:{Path(rest).absolute()}"
    program, _, arguments = rest.lstrip().partition(" ")
    if kind == "command" and "/" in program:
        return f"{kind}:{Path(program).absolute()} {arguments}".rstrip()
    return text


def _parse(text: str, details: FilterDetails) -> ContentFilter:
    kind, _, rest = text.partition(":")
    if not rest.strip():
        raise OptionError(f"a filter is {KINDS}, not {text[:80]!r}")
    if kind == "words":
        return WordList.read(rest)
    if kind == "onnx":
        path = Path(rest)
        options = ClassifierOptions.beside(path, refuse=details.labels or None, threshold=details.threshold)
        return ImageClassifier(path, options)
    if kind == "command":
        try:
            return CommandFilter(shlex.split(rest), seconds=details.seconds)
        except ValueError as error:
            raise error if isinstance(error, OptionError) else OptionError(f"{rest!r} is no command: {error}") from None
    raise OptionError(f"there is no kind of filter {kind[:40]!r}; a filter is {KINDS}")

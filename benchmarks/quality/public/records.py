"""Keeps what came of items: a line is written once its picture is there, and replaces an earlier one of the item."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from ....engine.errors import BenchmarkError
from ....engine.system.json_lines import Appender
from ....engine.system.locks import exclusive_if_free

RESULTS = "results.jsonl"
LOCK = ".lock"
Line = TypeVar("Line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Says how all answers of a run are sampled: resolved, so that a bundle's defaults stand here as numbers.

    `seed` is the run's; each item's own is drawn from it and the item's key. `size` is the one that was asked for, None
    for that of each picture.
    """

    seed: int
    steps: int
    guidance: float
    solver: str = "euler"
    sigmas: tuple[float, ...] | None = None
    step_mask: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Holds what is recorded of an item: a picture, or in `error` why there is none.

    Attributes:
        key: The item's key.
        category: Its category.
        seed: The seed of its noise.
        bundle: The fingerprint of the bundle.
        executor: The name of what ran it.
        settings: How it was sampled.
        prompt_sha256: The hash of its instruction.
        reference_sha256: The hash of the file of its picture, "" if that could not be read.
        file: The answer's place in the folder of results.
        sha256: The hash of the answer's file.
        size: The (width, height) in pixels of the answer.
        ms: The milliseconds that it took.
        error: What went wrong; then `file`, `sha256`, `size` and `ms` are empty.
    """

    key: str
    category: str
    seed: int
    bundle: str
    executor: str
    settings: Settings
    prompt_sha256: str
    reference_sha256: str
    file: str = ""
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    ms: float = 0.0
    error: str | None = None


class Lines(Generic[Line]):
    """Reads and writes one file of lines of one type."""

    def __init__(self, path: Path, kind: type[Line]) -> None:
        self.path = path
        self._decoder: Any = msgspec.json.Decoder(kind)

    def read(self) -> list[Line]:
        """Return the whole lines of the file, none if there is no file.

        Raises:
            BenchmarkError: A line is none of ours.
        """
        try:
            whole = self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(whole, 1):
            try:
                found.append(self._decoder.decode(line))
            except (ValueError, RecursionError) as error:
                raise BenchmarkError(
                    f"{self.path}, line {number} is not as this version writes it: {error}; take another folder"
                ) from None
        return found

    @contextmanager
    def appending(self) -> Iterator[Appender[Line]]:
        """Open the file to add lines to it, without what of a line an ended process has left."""
        with self.path.open("a+b") as file:
            yield Appender(file, str(self.path))


def read_answers(folder: Path) -> dict[str, Answer]:
    """Return the answers of a folder of results by key, the last of each, without those that failed.

    Raises:
        BenchmarkError: A line is none of ours.
    """
    last = {answer.key: answer for answer in Lines(folder / RESULTS, Answer).read()}
    return {key: answer for key, answer in last.items() if answer.error is None}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder of results, and keep other processes from writing into it.

    Raises:
        BenchmarkError: Another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with exclusive_if_free(descriptor) as free:
        if not free:
            raise BenchmarkError(f"another process writes into {folder}; wait for it, or take another --out")
        yield

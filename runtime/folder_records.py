"""Keeps what a folder of answers was made from: a line of JSON per answer, by which a later run knows what is there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ..engine.errors import RequestError
from ..engine.system.files import sha256_file
from ..engine.system.json_lines import Appender
from ..engine.system.locks import exclusive_if_free

logger = logging.getLogger(__name__)

RECORDS = "results.jsonl"
"""The name of the file with a line per answer, in the folder of the answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """Holds what one answer was made from.

    Attributes:
        input: The name of the picture that was edited.
        input_sha256: The SHA-256 of its file, in hex.
        output: The name of the answer.
        output_sha256: The SHA-256 of the answer's file, in hex; "" before it is written.
        asked: What was asked for, but for the seed.
        request: What made it, as `Result.request` says.
    """

    input: str
    input_sha256: str
    output: str
    output_sha256: str
    asked: Mapping[str, Any]
    request: Mapping[str, Any]


class FolderRecords:
    """Holds the records of a folder of answers, the latest of each. It is made by `open_records`.

    Args:
        folder: The folder.
        file: Its file of records, open to read and append.
    """

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        self._folder = folder
        self._latest: dict[str, AnswerRecord] = {}
        self._lines = Appender[AnswerRecord](file, str(folder / RECORDS))
        lost = 0
        file.seek(0)
        for line in file.read().splitlines():
            try:
                record = msgspec.json.decode(line, type=AnswerRecord)
            except msgspec.DecodeError:
                lost += 1
            else:
                self._latest[record.output] = record
        if lost:
            logger.warning("%s: %d lines are no records of answers, and are passed over", folder / RECORDS, lost)

    def find(self, output: str) -> AnswerRecord | None:
        """Return the record of an answer whose file is still as it was written, None without one.

        Args:
            output: The answer's name.
        """
        record, path = self._latest.get(output), self._folder / output
        if record is None or not path.is_file() or sha256_file(path) != record.output_sha256:
            return None
        return record

    def is_own(self, output: str) -> bool:
        """Return whether an answer's file is as a run left it, be it that it was ended between file and record.

        Args:
            output: The answer's name.
        """
        record = self._latest.get(output)
        return record is not None and (not record.output_sha256 or self.find(output) is not None)

    def add(self, record: AnswerRecord) -> None:
        """Write a record: once before its answer, and once after it."""
        self._lines.add(record)
        self._latest[record.output] = record


@contextmanager
def open_records(folder: Path) -> Iterator[FolderRecords]:
    """Give the records of a folder of answers, which is made if it is missing; nobody else writes into it meanwhile.

    Raises:
        RequestError: Another process has them, or the place is no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / RECORDS).open("a+b")
    except OSError as error:
        raise RequestError(
            f"{folder} cannot hold a folder's answers: {error.strerror or error}; choose another"
        ) from error
    with file, exclusive_if_free(os.dup(file.fileno())) as held:
        if not held:
            raise RequestError(f"another process is writing answers into {folder}; wait for it, or choose another")
        yield FolderRecords(folder, file)

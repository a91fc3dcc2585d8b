"""Appends to files of one JSON object per line, which a process that is killed cannot spoil.

A line is on the disk when it has been added. What an ended process has left of a line is cut off by the next one.
"""

from __future__ import annotations

import logging
import os
from typing import BinaryIO, Generic, TypeVar

import msgspec

logger = logging.getLogger(__name__)

Line = TypeVar("Line", contravariant=True)


class Appender(Generic[Line]):
    """Adds lines to a file. No other process may write to it meanwhile.

    Args:
        file: The file, open to read and append.
        name: What it is called in warnings.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        file.seek(0)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            logger.warning("%s: the last line was not finished, and is removed", name)
            file.truncate(whole)

    def add(self, line: Line) -> None:
        """Write a line, on the disk when this returns."""
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

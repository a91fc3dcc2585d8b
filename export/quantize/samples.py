"""Reads what to calibrate on: a folder of pictures with instructions in a text or CSV file."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...engine.errors import ImageError, QuantizationError
from ...engine.system.files import visible_files
from ...runtime.inputs.pictures import read_picture
from .calibration import Skipped

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
FORMAT = (
    "it needs pictures and one .csv file with the columns picture and instruction (no picture: text to image), or one "
    ".txt file whose lines go with the pictures in the order of their names (further lines: text to image)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Describes an edit, or, without a picture, text to image."""

    picture: Path | None
    instruction: str

    def key(self, seed: int, steps: int) -> str:
        """Return a hash of the sample, `seed` and `steps`, which tells samples apart whatever their files' names."""
        picture = self.picture.read_bytes() if self.picture else b""
        text = f"{seed}\0{steps}\0{self.instruction}\0".encode()
        return hashlib.sha256(text + hashlib.sha256(picture).digest()).hexdigest()[:32]


def read_samples(folder: Path) -> tuple[list[Sample], list[Skipped]]:
    """Return the samples, and the pictures that cannot be read.

    Raises:
        QuantizationError: The folder is missing or empty, or nothing in it can be used.
    """
    listed = list_samples(folder)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for sample in listed:
        reason = _unusable(sample)
        if reason:
            logger.warning("skipped: %s", reason)
            skipped.append(Skipped(picture=sample.picture.name if sample.picture else "", reason=reason))
        else:
            samples.append(sample)
    if not samples:
        raise QuantizationError(f"none of the {len(skipped)} pictures in {folder} can be read: {skipped[0].reason}")
    return samples, skipped


def list_samples(folder: Path) -> list[Sample]:
    """Return the samples that a folder lists; no picture is read.

    Raises:
        QuantizationError: The folder is missing or empty, or its list cannot be read.
    """
    if not folder.is_dir():
        raise QuantizationError(f"calibration folder {folder} does not exist; {FORMAT}")
    tables, texts = visible_files(folder, "*.csv"), visible_files(folder, "*.txt")
    if len(tables) + len(texts) != 1:
        found = ", ".join(file.name for file in (*tables, *texts)) or "neither"
        raise QuantizationError(
            f"calibration folder {folder} should have one .csv or .txt file, it has {found}; {FORMAT}"
        )
    listed = list(_from_table(tables[0]) if tables else _from_text(texts[0], folder))
    if not listed:
        raise QuantizationError(f"calibration folder {folder} is empty: no instruction in it; {FORMAT}")
    return listed


def _unusable(sample: Sample) -> str:
    if sample.picture is None:
        return ""
    try:
        read_picture(sample.picture)
    except ImageError as error:
        return str(error)
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise QuantizationError(f"{file}, line {line}, is not UTF-8 ({error.reason}); save it as UTF-8") from error


def _from_table(file: Path) -> Iterator[Sample]:
    rows = csv.DictReader(io.StringIO(_text(file), newline=""))
    try:
        if not {"picture", "instruction"} <= set(rows.fieldnames or ()):
            raise QuantizationError(f"{file} has the columns {rows.fieldnames}, it needs picture and instruction")
        for row in rows:
            if (row["instruction"] or "").strip():
                name = (row["picture"] or "").strip()
                yield Sample(picture=file.parent / name if name else None, instruction=row["instruction"].strip())
    except csv.Error as error:
        raise QuantizationError(f"{file}, line {rows.line_num}, is no CSV: {error}") from error


def _from_text(file: Path, folder: Path) -> Iterator[Sample]:
    # `splitlines` would also end a line at characters that only separate words or pages
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", _text(file)) if line.strip()]
    pictures = [path for path in visible_files(folder, "*") if path.suffix.lower() in SUFFIXES]
    if len(lines) < len(pictures):
        raise QuantizationError(f"{file} has {len(lines)} instructions for {len(pictures)} pictures; {FORMAT}")
    for index, line in enumerate(lines):
        yield Sample(picture=pictures[index] if index < len(pictures) else None, instruction=line)

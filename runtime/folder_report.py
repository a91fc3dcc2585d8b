"""Defines how a folder of pictures is edited, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .outputs.provenance import PictureSigner


class FolderStatus(str, Enum):
    """Says what became of one picture: its answer was made, was there from an earlier run, or could not be made."""

    MADE = "made"
    KEPT = "kept"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRow:
    """Holds what became of one picture of a folder.

    Attributes:
        input: The picture.
        output: Its answer, which is there unless `status` is "failed".
        status: What became of it.
        seed: The seed of its answer, None where there is none.
        reason: Why there is none, "" where there is one.
        milliseconds: How long it took, 0 if nothing was made.
        replaced: Whether the answer took the place of a file, such as an answer to another request.
    """

    input: Path
    output: Path
    status: FolderStatus
    seed: int | None = None
    reason: str = ""
    milliseconds: float = 0.0
    replaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """Holds what became of a folder's pictures, in the order of their names."""

    rows: tuple[FolderRow, ...]

    def of(self, status: FolderStatus) -> tuple[FolderRow, ...]:
        """Return the rows of one status."""
        return tuple(row for row in self.rows if row.status is status)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions:
    """Says how a folder's answers are written.

    Attributes:
        suffix: The suffix of the answers, which chooses their format.
        overwrite: True to replace files that no run of `edit_folder` has made.
        signer: Who signs them; None for nobody.
        debug_nan: True to check every component and step for NaN, as of `Kontext.run`.
    """

    suffix: str = ".png"
    overwrite: bool = False
    signer: PictureSigner | None = None
    debug_nan: bool = False

"""Says under which names pictures are written, and keeps what they were made from unless that may be replaced."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.errors import RequestError
from ...engine.system.changes import is_same_file
from ...engine.system.files import sha256_file
from ..inputs.request import Request
from .picture_file import check_output


def picture_files(path: Path, count: int) -> tuple[Path, ...]:
    """Return the names of so many pictures: the path itself, or of several NAME-1.png, NAME-2.png, ..."""
    if count == 1:
        return (path,)
    return tuple(path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1))


def check_outputs(path: Path, request: Request, *, overwrite: bool = False) -> tuple[Path, ...]:
    """Return the files that a request's pictures are to be written to, before anything is made or loaded.

    Args:
        path: The file, whose name is numbered if there are several pictures.
        request: What is asked for.
        overwrite: True if what they are made from may be replaced.

    Raises:
        RequestError: No file can be made there, Pillow writes no colour picture of that suffix, or one of the files is
            one of the request's own.
    """
    check_output(path)
    files = picture_files(path, request.num_pictures)
    for file in files:
        check_output(file)
    check_kept(files, request.files, overwrite=overwrite)
    return files


def check_kept(files: Iterable[Path], inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raise RequestError for a file to be written that is one of those it is made from, unless they may be replaced."""
    if overwrite:
        return
    inputs = tuple(inputs)
    for file in files:
        for source in inputs:
            if is_same_file(file, source):
                raise _refusal(file, "" if Path(file).absolute() == source else f", {source}")


def _refusal(file: Path, named: str = "") -> RequestError:
    return RequestError(
        f"{file} is one of the pictures that it is made from{named}, and would be replaced; choose another name, or "
        "allow it with --overwrite (in Python overwrite=True)"
    )


@dataclass(frozen=True, slots=True)
class Origins:
    """Holds the files that a session is made from: its picture, references and masks.

    Attributes:
        files: The absolute paths of those that were read in this process.
        hashes: The SHA-256, in hex, of those that were read before the session was opened again: a session's file goes
            from hand to hand, so it tells no paths.
    """

    files: frozenset[Path] = frozenset()
    hashes: frozenset[str] = frozenset()

    def beside(self, files: Iterable[Path | None]) -> Origins:
        """Return these and further files; None is what was in memory."""
        return replace(self, files=self.files.union(file for file in files if file is not None))

    def check_kept(self, file: Path, *, overwrite: bool) -> None:
        """Raise RequestError for a file to be written that is one of these, unless they may be replaced."""
        check_kept([file], self.files, overwrite=overwrite)
        if not overwrite and self.hashes and _hash(file) in self.hashes:
            raise _refusal(file)

    def all_hashes(self) -> tuple[str, ...]:
        """Return the hashes of all files, but for those that are gone."""
        return tuple(sorted(self.hashes.union(filter(None, map(_hash, self.files)))))


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, "" if it cannot be read, or is no file: a pipe would be waited for."""
    with suppress(OSError, ValueError):
        if path.is_file():
            return sha256_file(path)
    return ""

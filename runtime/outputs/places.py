"""Says under which names pictures are written, and keeps what they were made from unless that may be replaced."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...engine.errors import RequestError
from ...engine.system.changes import is_same_file
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
                named = "" if Path(file).absolute() == source else f", {source}"
                raise RequestError(
                    f"{file} is one of the pictures that it is made from{named}, and would be replaced; choose another "
                    "name, or allow it with --overwrite (in Python overwrite=True)"
                )

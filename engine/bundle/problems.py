"""Says how files of a bundle differ from what its manifest records of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..system.files import sha256_of
from .folder import Folder
from .manifest import FileRecord, WeightsRecord
from .tensor_file import read_header_sha256


def size_problems(root: Folder, place: str, size_bytes: int) -> Iterator[str]:
    """Yield what is wrong with a file that should have `size_bytes`: it is missing, or of another size."""
    try:
        size = root.size(place)
    except FileNotFoundError:
        yield f"{place} is missing"
    else:
        if size != size_bytes:
            yield f"{place} is cut short or altered: {size:,} bytes of {size_bytes:,}"


def file_problems(root: Folder, record: FileRecord) -> Iterator[str]:
    """Yield what is wrong with a file of which every byte is known by its hash."""
    return _problems(root, record, sha256_of, record.sha256, "was altered (SHA-256 differs)")


def weights_problems(root: Folder, record: WeightsRecord) -> Iterator[str]:
    """Yield what is wrong with a weights file, by its size and its header."""
    words = "is another safetensors file than was exported (its header differs)"
    return _problems(root, record, read_header_sha256, record.header_sha256, words)


def _problems(
    root: Folder, record: FileRecord | WeightsRecord, read: Callable[[BinaryIO], str], wanted: str, words: str
) -> Iterator[str]:
    """Yield what is wrong with a file; `words` if it is there and what `read` makes of it is not as wanted."""
    found = list(size_problems(root, record.path, record.size_bytes))
    yield from found
    if not found:
        with root.reader(record.path) as file:
            if read(file) != wanted:
                yield f"{record.path} {words}"

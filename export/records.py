"""Describes a bundle's files as its manifest lists them."""

from __future__ import annotations

from pathlib import Path

from ..engine.bundle.bundle import WEIGHTS
from ..engine.bundle.manifest import FileRecord, WeightsRecord
from ..engine.bundle.tensor_file import TensorFile
from ..engine.system.files import sha256_file


def file_record(folder: Path, path: str) -> FileRecord:
    """Return the manifest's record of the file at `path`, relative to the bundle's `folder`, with its size and hash."""
    file = folder / path
    return FileRecord(path=path, size_bytes=file.stat().st_size, sha256=sha256_file(file))


def weights_record(file: Path, origin: str) -> WeightsRecord:
    """Return the manifest's record of a file among the bundle's weights, without its full hash."""
    tensors = TensorFile.open(file)
    return WeightsRecord(
        path=f"{WEIGHTS}/{file.name}",
        size_bytes=tensors.size_bytes,
        header_sha256=tensors.header_sha256,
        sample_sha256=tensors.sample_sha256(),
        origin=origin,
    )

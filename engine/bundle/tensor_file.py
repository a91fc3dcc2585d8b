"""Reads safetensors headers without the format's library, which maps the data.

Source of the format: huggingface/safetensors README (8 bytes little-endian header length, JSON header, then the data).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from msgspec import Meta

from ..documents import Count, convert_json, read_json
from ..errors import CheckpointError
from ..number_types import SAFETENSORS

MAX_HEADER_BYTES = 8 << 20
"""The longest header that is read; FLUX.1's 780 tensors take 80 KB, and the format's own library reads 100 MB."""
SAMPLE_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """Describes one tensor in a file; `offset` and `size_bytes` count bytes, from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def num_items(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """Describes one tensor as the header does; offsets count from the header's end."""

    dtype: str
    shape: Annotated[tuple[Count, ...], Meta(max_length=32)]
    data_offsets: tuple[Count, Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """Holds the header of a safetensors file, checked against the file's size; no data is read.

    `data_offset` is the byte at which the header ends.
    """

    path: Path
    size_bytes: int
    data_offset: int
    header_sha256: str
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Read the header of the file at `path`.

        Raises:
            CheckpointError: It is not a whole safetensors file; the message names it.
        """
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                prefix = file.read(8)
                data = file.read(_header_length(prefix, size, path))
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error

        def malformed(reason: str) -> CheckpointError:
            return CheckpointError(f"{path} is not a safetensors file: its header is malformed ({reason})")

        raw, start = read_json(data, dict[str, Any], malformed), len(prefix) + len(data)
        metadata = raw.pop("__metadata__", None) or {}
        return cls(
            path=path,
            size_bytes=size,
            data_offset=start,
            header_sha256=hashlib.sha256(prefix + data).hexdigest(),
            tensors={name: _entry(name, fields, start, size, path) for name, fields in raw.items()},
            metadata=convert_json(metadata, dict[str, str], malformed),
        )

    def sample_sha256(self) -> str:
        """Return the SHA-256 over the header and the first KiB of every tensor.

        It tells two fine-tunes apart in milliseconds.
        """
        digest = hashlib.sha256(self.header_sha256.encode())
        with self.path.open("rb") as file:
            for entry in sorted(self.tensors.values(), key=lambda entry: entry.offset):
                file.seek(entry.offset)
                digest.update(file.read(min(entry.size_bytes, SAMPLE_BYTES)))
        return digest.hexdigest()


def read_header_sha256(file: BinaryIO) -> str:
    """Return the hash that `TensorFile.header_sha256` holds, from a file at its begin, without parsing the header."""
    prefix = file.read(8)
    if len(prefix) < 8:
        return ""
    data = file.read(min(struct.unpack("<Q", prefix)[0], MAX_HEADER_BYTES))
    return hashlib.sha256(prefix + data).hexdigest()


def _header_length(prefix: bytes, size: int, path: Path) -> int:
    if size == 0:
        raise CheckpointError(f"{path} is empty (0 bytes); download it again")
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else MAX_HEADER_BYTES + 1
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path} is not a safetensors file: its first 8 bytes are not a header length")
    if 8 + length > size:
        raise CheckpointError(f"{path} is cut short: its header needs {8 + length:,} bytes, the file has {size:,}")
    return length


def _entry(name: str, value: Any, start: int, size: int, path: Path) -> TensorEntry:
    def malformed(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: the header's entry of tensor {name:.200} is malformed ({reason})")

    fields = convert_json(value, _Fields, malformed)
    dtype, shape, (begin, end) = fields.dtype, fields.shape, fields.data_offsets
    if dtype not in SAFETENSORS:
        raise CheckpointError(f"{path}: tensor {name:.200} has the unknown type {dtype}")
    if end - begin != math.prod(shape) * SAFETENSORS[dtype].bits // 8:
        raise CheckpointError(
            f"{path}: tensor {name:.200} {dtype} {list(shape)} does not fill its {end - begin:,} bytes"
        )
    if start + end > size:
        raise CheckpointError(
            f"{path} is cut short: tensor {name:.200} ends at byte {start + end:,}, the file has {size:,}; download it "
            "again"
        )
    return TensorEntry(dtype=dtype, shape=shape, offset=start + begin, size_bytes=end - begin)

"""Computes one hash over large files, which several cores can do at once.

The hash of a file is the SHA-256 over the SHA-256 of each of its 16 MiB chunks, in order, and its length.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

CHUNK_BYTES = 16 << 20


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class ChunkedHash:
    """Hashes bytes that arrive in pieces of any size."""

    def __init__(self) -> None:
        self._digests = hashlib.sha256()
        self._chunk: _Digest = hashlib.sha256()
        self._filled = 0
        self.size_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            piece, view = view[: CHUNK_BYTES - self._filled], view[CHUNK_BYTES - self._filled :]
            self._chunk.update(piece)
            self._filled += len(piece)
            self.size_bytes += len(piece)
            if self._filled == CHUNK_BYTES:
                self._finish_chunk()

    def _finish_chunk(self) -> None:
        self._digests.update(self._chunk.digest())
        self._chunk, self._filled = hashlib.sha256(), 0

    def hexdigest(self) -> str:
        """Return the hash and end it: nothing may be added after that."""
        if self._filled:
            self._finish_chunk()
        self._digests.update(self.size_bytes.to_bytes(8, "little"))
        return self._digests.hexdigest()


def hash_buffer(buffer: memoryview, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the hash of a buffer, or a mapped file, computed on all cores (hashlib releases the interpreter's lock).

    `on_bytes` is told the size of every chunk that was hashed.
    """

    def digest(start: int) -> bytes:
        return hashlib.sha256(buffer[start : start + CHUNK_BYTES]).digest()

    digests = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for index, part in enumerate(pool.map(digest, range(0, len(buffer), CHUNK_BYTES))):
            digests.update(part)
            if on_bytes is not None:
                on_bytes(min(CHUNK_BYTES, len(buffer) - index * CHUNK_BYTES))
    digests.update(len(buffer).to_bytes(8, "little"))
    return digests.hexdigest()

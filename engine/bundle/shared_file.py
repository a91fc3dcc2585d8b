"""Shares a cache in a bundle between processes: what one adds, the next keeps.

Caches hold kernels, or decide which are taken, so only those that this user's key signed are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..system.signing import MAC_BYTES, find_key, own_key
from .folder import Folder

logger = logging.getLogger(__name__)

MAX_BYTES = 256 << 20
"""The largest cache that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFile:
    """Names a cache. On disk its bytes are followed by their MAC.

    Attributes:
        bundle: The bundle's folder.
        place: Where the file lies in it.
    """

    bundle: Path
    place: str

    @property
    def path(self) -> Path:
        return self.bundle / self.place

    def read(self) -> bytes:
        """Return the file's bytes; none if there is no such file yet, or somebody else wrote it, which is said.

        Raises:
            BundleError: It is no file of the bundle's own, or is too large.
        """
        try:
            with Folder.open(self.bundle) as root:
                data = root.read(self.place, MAX_BYTES)
        except FileNotFoundError:
            return b""
        return self._checked(data)

    def update(self, merge: Callable[[bytes], bytes]) -> None:
        """Replace the bytes by what `merge` makes of the present ones; no other process changes them meanwhile.

        Raises:
            BundleError: The file, or a folder on the way to it, is a link or anything else.
            OSError: It cannot be written.
            OptionError: This user's key cannot be read or made.
        """
        place = PurePosixPath(self.place)
        with Folder.open(self.bundle) as root, root.folder(str(place.parent), create=True) as folder:
            lock, name = place.with_suffix(".lock").name, place.name
            with folder.lock(lock), folder.atomic_file(name) as file:
                merged = merge(self.read())
                file.write(merged + own_key().mac(self._purpose, merged))

    @property
    def _purpose(self) -> str:
        return f"cache {self.place}"

    def _checked(self, data: bytes) -> bytes:
        body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
        key = find_key()
        if key is not None and key.verifies(self._purpose, body, mac):
            return body
        logger.warning("%s was not written by this user, so it is not read; it is made anew", self.path)
        return b""

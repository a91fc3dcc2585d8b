"""Keeps what several processes share in files of one folder, whose names say nothing to who reads the listing."""

from __future__ import annotations

import fcntl
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..engine.errors import OptionError
from ..engine.system.files import atomic_file

KEY_BYTES = 32
LEFT_SECONDS = 3600.0
"""The age from which on a file that was begun and never ended counts as left by a process that was killed."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

Identity = tuple[int, int, int]
"""An identity of a file, which differs from that of what lay at its place before: inode, time of writing and size."""


class StateFolder:
    """Holds a folder that belongs to one user, with the key that names in it are made with.

    Several hosts share it where it lies on a file system that they share, below the same path, for the same user.

    Args:
        path: The folder; it is made, mode 0700, if there is none.

    Raises:
        OptionError: It cannot be made, is another user's, or is open to others.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = path.stat()
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & _OTHERS:
                raise OptionError(
                    f"{path} holds pictures of clients, and is open to others (mode {stat.S_IMODE(status.st_mode):o}, "
                    f"user {status.st_uid}): give a folder of your own, and chmod 700 it"
                )
            self._key = _key(path / "key")
        except OSError as error:
            raise OptionError(f"{path} cannot keep a server's state: {error.strerror}; give another folder") from error
        self.path = path

    def shelf(self, kind: str) -> Shelf:
        """Return the files of one kind, which lie in a folder of that name."""
        return Shelf(self.path / kind, hmac.digest(self._key, kind.encode(), "sha256"))


def _key(path: Path) -> bytes:
    """Return the key in a file, which is drawn where there is none; of several that draw one, one counts."""
    if not path.exists():
        drawn = path.with_name(f".key.{secrets.token_hex(4)}")
        with os.fdopen(os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(drawn, path)
        drawn.unlink()
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise OptionError(f"{path} has {len(key)} bytes, and a key has {KEY_BYTES}; remove the folder that it lies in")
    return key


class Shelf:
    """Keeps files of one kind by names, which are hashed with a key. It may be used by several threads and processes.

    Args:
        folder: Where they lie.
        key: What their names are made with.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder, self._key = folder, key
        folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, name: str) -> Path:
        """Return where the file of a name lies, or would."""
        return self._folder / hmac.digest(self._key, name.encode(errors="surrogatepass"), "sha256").hex()

    def temporary(self, name: str) -> Path:
        """Return where a file of a name is written before `take`."""
        return self._folder / f".{self.path(name).name}.{secrets.token_hex(4)}"

    def take(self, temporary: Path, name: str) -> None:
        """Put a file that was written whole in the place of a name."""
        temporary.chmod(0o600)
        temporary.replace(self.path(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        with atomic_file(self.path(name)) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)

    def read(self, name: str, seconds: float) -> bytes | None:
        """Return the bytes of a file, None if there is none or it was written too many seconds ago."""
        try:
            with self.path(name).open("rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > seconds:
                    return None
                return file.read()
        except FileNotFoundError:
            return None

    def first_line(self, name: str, seconds: float) -> bytes | None:
        """Return the first line of a file, None if there is none or it was written too many seconds ago."""
        return _first_line(self.path(name), seconds)

    def first_lines(self, seconds: float) -> list[bytes]:
        """Return the first lines of all files that were not written too many seconds ago."""
        found = [_first_line(path, seconds) for path, _ in self._files()]
        return [line for line in found if line is not None]

    def identity(self, name: str, seconds: float | None = None) -> Identity | None:
        """Return what tells a file from others, None if there is none or it was not used for too many seconds."""
        try:
            status = self.path(name).stat()
        except FileNotFoundError:
            return None
        if seconds is not None and time.time() - _used(status) > seconds:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def use(self, name: str) -> None:
        """Note that a file is used now: the time of access, which file systems that note none by themselves have, too.

        Nothing happens if there is none.
        """
        path = self.path(name)
        with suppress(FileNotFoundError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def touch(self, name: str) -> None:
        """Note that a file counts as written now. Nothing happens if there is none."""
        with suppress(FileNotFoundError):
            os.utime(self.path(name))

    def move(self, name: str, to: Shelf) -> bool:
        """Move a file to another shelf, where it is empty; of several that do, one gets True, as who removes it may."""
        there = to.path(name)
        try:
            self.path(name).rename(there)
        except FileNotFoundError:
            return False
        with suppress(FileNotFoundError):  # who waited for it has seen it
            os.truncate(there, 0)
        return True

    def remove(self, name: str) -> bool:
        """Remove a file, and return whether there was one."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time in, on file systems that have locks."""
        with (self._folder / ".lock").open("ab") as file:
            os.fchmod(file.fileno(), 0o600)
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def trim(
        self, seconds: float, *, count: float = float("inf"), size_bytes: float = float("inf"), by_use: bool = False
    ) -> None:
        """Remove what is too old, then the oldest until no more are left than may be.

        Args:
            seconds: The seconds since a file was written.
            count: The most files.
            size_bytes: The most bytes of all files.
            by_use: Whether their last use counts, as `use` notes it, and not when they were written.
        """
        now, since = time.time(), _used if by_use else _written
        kept = sorted(self._files(), key=lambda one: since(one[1]))
        total = sum(status.st_size for _, status in kept)
        for number, (path, status) in enumerate(kept):
            if now - since(status) > seconds or len(kept) - number > count or total > size_bytes:
                path.unlink(missing_ok=True)
                total -= status.st_size
        for path, status in self._files(hidden=True):
            if path.name != ".lock" and now - status.st_mtime > LEFT_SECONDS:
                path.unlink(missing_ok=True)

    def _files(self, *, hidden: bool = False) -> list[tuple[Path, os.stat_result]]:
        found: list[tuple[Path, os.stat_result]] = []
        for path in self._folder.iterdir():
            if path.name.startswith(".") is hidden:
                with suppress(FileNotFoundError):  # another process removed it meanwhile
                    found.append((path, path.stat()))
        return found

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return sum(status.st_size for _, status in self._files())

    def __len__(self) -> int:
        return len(self._files())


def _first_line(path: Path, seconds: float) -> bytes | None:
    try:
        with path.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > seconds:
                return None
            return file.readline()
    except FileNotFoundError:
        return None


def _used(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)


def _written(status: os.stat_result) -> float:
    return status.st_mtime

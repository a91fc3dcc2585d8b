"""Opens what lies in a folder that may come from elsewhere, and nothing outside it.

Everything goes by directory descriptors, and no symbolic link is followed: what a link points to is not the folder's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from ..errors import BundleError
from ..system.files import atomic_file_at
from ..system.locks import exclusive

MAX_PLACE = 1024
"""The longest place in characters."""
MAX_NAME_BYTES = 255
"""The longest name that file systems have."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def parts_of(place: str, where: Path | str) -> tuple[str, ...]:
    """Return the names that a place is made of: a relative path with forward slashes, which leads down only.

    Raises:
        BundleError: It is absolute, empty or too long, or leads up; `where` names the folder in the message.
    """
    path = PurePosixPath(place)
    leads_down = bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in place
    short = len(place) <= MAX_PLACE and all(len(os.fsencode(name)) <= MAX_NAME_BYTES for name in path.parts)
    if not (leads_down and short):
        raise BundleError(f"{place[:200]!r} is no place inside {where}; do not use this bundle")
    return path.parts


def require_folder(path: Path) -> None:
    """Raise BundleError for what cannot be a bundle, since it is no folder."""
    if path.is_file():
        raise BundleError(f"{path} is a file, and a bundle is a folder, as kontext-trt export makes it")
    if not path.is_dir():
        raise BundleError(f"bundle {path} does not exist; make it with: kontext-trt export CHECKPOINT {path}")


class Folder:
    """Holds a folder open, and is a context manager that closes it.

    A place is a path below it with forward slashes.

    Attributes:
        path: The folder's path, for messages.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Open the folder at a path that a user gave; links up to there are the user's own, and are followed.

        Raises:
            OSError: There is no such folder.
        """
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), path)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def folder(self, place: str, *, create: bool = False) -> Folder:
        """Open a folder below this one; with `create` those that are missing are made.

        Raises:
            BundleError: A part of the place is a link, or a file.
            FileNotFoundError: There is no such folder.
        """
        descriptor, path = os.dup(self._descriptor), self.path
        for name in parts_of(place, self.path):
            path = path / name
            try:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=descriptor)
                try:
                    inner = os.open(name, _FOLDER, dir_fd=descriptor)
                except OSError as error:
                    if error.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise _refusal(path, descriptor, "folder") from None
                    raise _at(error, path) from None
            finally:
                os.close(descriptor)
            descriptor = inner
        return Folder(descriptor, path)

    def new_folder(self, name: str) -> Folder:
        """Make a folder in this one, and open it.

        Raises:
            FileExistsError: Something has the name.
        """
        os.mkdir(name, 0o700, dir_fd=self._descriptor)
        return self.folder(name)

    def has_folder(self, place: str) -> bool:
        """Return whether there is such a folder.

        Raises:
            BundleError: A part of the place is a link, or a file.
        """
        try:
            self.folder(place).__exit__(None, None, None)
        except FileNotFoundError:
            return False
        return True

    def descriptor(self, place: str, flags: int = os.O_RDONLY) -> int:
        """Open the regular file at a place, and return its descriptor, which is the caller's to close.

        Raises:
            BundleError: It, or a folder on the way, is a link, a device or anything else.
            FileNotFoundError: There is none, and `flags` do not make one.
        """
        with self._parent(place) as (parent, name):
            path = self.path / place
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise _refusal(path, parent, "file")  # before it is opened: opening a device may do something
            try:
                descriptor = os.open(name, flags | _FILE, 0o666, dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EISDIR):
                    raise _refusal(path, parent, "file") from None
                raise _at(error, path) from None
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise _refusal(path, parent, "file")
        return descriptor

    def reader(self, place: str) -> BinaryIO:
        """Open the regular file at a place for reading.

        Raises:
            BundleError, FileNotFoundError: As `descriptor` does.
        """
        return os.fdopen(self.descriptor(place), "rb")

    def read(self, place: str, limit: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            BundleError: It has more than `limit` bytes, or as `descriptor` raises it.
            FileNotFoundError: There is none.
        """
        with self.reader(place) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise BundleError(f"{self.path / place} has more than {limit:,} bytes, which no such file needs")
        return data

    def status(self, place: str) -> os.stat_result:
        """Return what the system says of the regular file at a place: its size, mode and owner.

        Raises:
            BundleError, FileNotFoundError: As `descriptor` does.
        """
        with self.reader(place) as file:
            return os.fstat(file.fileno())

    def size(self, place: str) -> int:
        """Return the size in bytes of the regular file at a place.

        Raises:
            BundleError, FileNotFoundError: As `descriptor` does.
        """
        return self.status(place).st_size

    def names(self) -> list[str]:
        """Return the names of what lies in it, sorted; a name that is not UTF-8 has surrogates."""
        return sorted(os.listdir(self._descriptor))

    def fresh(self, name: str) -> Path:
        """Make an empty file in it in the place of what had the name, and return its path."""
        self.remove(name)
        os.close(self.descriptor(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        return self.path / name

    def remove(self, name: str) -> None:
        """Delete a file in it, or a link itself, not what it points to. There may be none."""
        try:
            os.unlink(*parts_of(name, self.path), dir_fd=self._descriptor)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise _refusal(self.path / name, self._descriptor, "file") from None

    def remove_folder(self, name: str) -> bool:
        """Delete a folder in it that is empty; return False for one that is not."""
        try:
            os.rmdir(*parts_of(name, self.path), dir_fd=self._descriptor)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise _at(error, self.path / name) from None
            return False
        return True

    def move(self, name: str, to: Folder, new_name: str) -> None:
        """Give a file in it a place in another folder of the same file system, in the place of what is there."""
        os.replace(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=to._descriptor)

    @contextmanager
    def atomic_file(self, name: str) -> Iterator[BinaryIO]:
        """Give a binary file that appears under `name` whole, on a clean exit, or not at all."""
        with atomic_file_at(self._descriptor, name) as file:
            yield file

    @contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold a lock file alone; `on_wait` is called once if another process has it."""
        with exclusive(self.descriptor(name, os.O_RDWR | os.O_CREAT), on_wait):
            yield

    @contextmanager
    def _parent(self, place: str) -> Iterator[tuple[int, str]]:
        *folders, name = parts_of(place, self.path)
        if not folders:
            yield self._descriptor, name
            return
        with self.folder("/".join(folders)) as parent:
            yield parent._descriptor, name


def _at(error: OSError, path: Path) -> OSError:
    """Return an error that names the whole path, where the system names the last part."""
    return type(error)(error.errno, error.strerror, str(path))


def _refusal(path: Path, parent: int, wanted: str) -> BundleError:
    mode = os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        return BundleError(
            f"{path} is a symbolic link, and nothing in a bundle may be: what it points to is not the bundle's. Hub "
            "caches are made of links; download it into a folder of its own (hf download REPO --local-dir FOLDER)"
        )
    return BundleError(f"{path} is no regular {wanted}; do not use this bundle")

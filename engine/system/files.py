"""Writes files so that nothing half-written is ever opened, and names their bytes."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

CHUNK_BYTES = 4 << 20
FICLONE = 0x40049409  # linux/fs.h: share another file's blocks


def sha256_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of a whole file, in hex; `on_bytes` is told the size of every chunk read."""
    with path.open("rb") as file:
        return sha256_of(file, on_bytes)


def sha256_of(file: BinaryIO, on_bytes: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of what is left of an open file, in hex; `on_bytes` is told the size of every chunk read."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        if on_bytes is not None:
            on_bytes(len(chunk))
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Give a binary file that appears at `path` whole, on a clean exit, or not at all.

    If there is a symbolic link it stays, and the file that it points to is replaced: the link is the user's own.
    """
    if path.is_symlink():
        path = path.resolve()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with atomic_file_at(folder, path.name) as file:
            yield file
    finally:
        os.close(folder)


@contextmanager
def atomic_file_at(folder: int, name: str) -> Iterator[BinaryIO]:
    """Give a binary file that appears under `name` in an open folder whole, on a clean exit, or not at all."""
    temporary = f".{_short(name)}.{secrets.token_hex(4)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a folder to fill under a temporary name, which appears at `path` on a clean exit.

    With `replace` it takes the place of what is there. What a process that was killed has left of the same path goes.

    Raises:
        FileExistsError: Something is at `path` by then, and `replace` is not set.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{_short(path.name)}."))
    retired: Path | None = None
    try:
        with _unfinished(temporary):
            yield temporary
        temporary.chmod(0o777 & ~_umask())
        if os.path.lexists(path):
            if not replace:
                raise FileExistsError(f"{path} was made by somebody else meanwhile")
            retired = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{_short(path.name)}.old.")) / path.name
            path.rename(retired)
        temporary.rename(path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if retired is not None and os.path.lexists(retired) and not os.path.lexists(path):
            retired.rename(path)
        raise
    finally:
        if retired is not None:
            shutil.rmtree(retired.parent, ignore_errors=True)


UNFINISHED = ".unfinished"
"""The file in a folder that is being filled; its lock is held by who fills it, as long as that lives."""
LEFT_SECONDS = 60.0
"""The age from which on a folder that nobody holds counts as left: its maker has locked it long before."""


@contextmanager
def _unfinished(folder: Path) -> Iterator[None]:
    mark = folder / UNFINISHED
    with mark.open("xb") as file:
        with suppress(OSError):  # a file system without locks; what is left there stays
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
        mark.unlink()


def _remove_leftovers(path: Path) -> None:
    """Remove folders that `atomic_folder` has begun for a path, and whose process has ended without a word."""
    for mark in path.parent.glob(f".{glob.escape(_short(path.name))}.*/{UNFINISHED}"):
        with suppress(OSError), mark.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > LEFT_SECONDS:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(mark.parent)
                logger.info("removed %s, which a process that was ended had left", mark.parent)


def _short(name: str) -> str:
    """Return a name that leaves room for what makes it temporary: file systems have names of up to 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:200])


def _umask() -> int:
    """Read the mask, not set and set it back: other threads create files, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def is_taken(path: Path) -> bool:
    """Return whether there is something at `path`; an empty folder is nothing."""
    return any(path.iterdir()) if path.is_dir() else path.exists()


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Return what matches a pattern in a folder, sorted by name, without hidden files, which other systems leave."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def free_path(path: Path) -> Path:
    """Return `path`, or where something has that name the first free one of NAME-2.SUFFIX, NAME-3.SUFFIX and so on."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def share_file(source: Path, target: Path, *, copy: bool = False) -> str:
    """Make `target` hold the bytes of `source` without copying them where the file system allows; it must not exist.

    With `copy` it gets blocks of its own, or shared ones that a write to either file parts. Links in `source` itself
    are followed, so a file in a hub cache gives its blob.

    Returns:
        How: "reflink" (shared blocks: btrfs, XFS), "hardlink", or "copy" (another file system).
    """
    source = source.resolve()
    if _reflink(source, target):
        return "reflink"
    if copy:
        shutil.copyfile(source, target)
        return "copy"
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:  # each file system that has no hard links says so in its own way; copying tells the rest
        logger.warning("%s is copied, %d MB: %s", source, source.stat().st_size // 1_000_000, error.strerror)
        shutil.copyfile(source, target)
        return "copy"
    return "hardlink"


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), FICLONE, reader.fileno())
        except OSError:
            shared = False
        else:
            shared = True
    if not shared:
        target.unlink()
    return shared

"""Removes plans that nobody can or need open, and what interrupted builds left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..bundle.bundle import Bundle
from ..components import COMPONENTS
from ..system.locks import exclusive_if_free, unused
from .choice import outdated
from .store import PlanStore, remove_unused


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Describes a plan, or an unfinished one's folder, that goes.

    Attributes:
        path: The plan or the folder.
        reason: Why it goes, in words.
        size_bytes: What it takes on disk, without a plan's manifest.
        in_use: True if a process has it and it stays.
    """

    path: Path
    reason: str
    size_bytes: int
    in_use: bool


def prune_store(store: PlanStore, bundle: Bundle, *, everything: bool = False, dry_run: bool = False) -> list[Removal]:
    """Remove unfinished, damaged and outdated plans; with `everything` the sound ones, too.

    With `dry_run` nothing is removed, only listed.
    """
    removals = list(_unfinished(store, dry_run))
    for entry in list(store.entries()):
        with exclusive_if_free(store.lock_path(entry.path.stem), create=not dry_run) as free:  # else it is being built
            current = store.entry(entry.component, entry.path) if free else entry
            if current is None:
                continue
            reason = outdated(current, bundle) or ("asked for" if everything else "")
            if reason:
                removals.append(_remove(current.path, reason, dry_run, building=not free))
    return removals


def _remove(path: Path, reason: str, dry_run: bool, *, building: bool) -> Removal:
    size = path.stat().st_size
    if building:
        in_use = True
    elif dry_run:
        with unused(path) as free:
            in_use = not free
    else:
        in_use = not remove_unused(path)
    return Removal(path=path, reason=reason, size_bytes=size, in_use=in_use)


def _unfinished(store: PlanStore, dry_run: bool) -> Iterator[Removal]:
    """Remove temporary folders of builds, unless their key's lock says that they are under way.

    With `dry_run` none is removed, only listed.
    """
    for component in COMPONENTS:
        for folder in sorted((store.folder / component).glob(".*")):
            lock = store.lock_path(folder.name.split(".")[1])
            if not folder.is_dir() or not lock.is_file():
                continue
            with unused(lock) as free:
                size = _size_bytes(folder)
                if free and not dry_run:
                    shutil.rmtree(folder)
            reason = "its build was ended" if free else "it is being built"
            yield Removal(path=folder, reason=reason, size_bytes=size, in_use=not free)


def _size_bytes(folder: Path) -> int:
    """Sum the bytes of the files in a folder that its owner may be emptying; 0 if it is gone."""
    size = 0
    with suppress(FileNotFoundError):
        for file in folder.iterdir():
            size += file.stat().st_size
    return size

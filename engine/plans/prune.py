"""Removes plans that nobody can or need open, and what interrupted builds left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bundle.bundle import Bundle
from ..errors import BundleError
from .choice import outdated
from .leftovers import leftover_bytes, remove_leftover
from .store import PlanStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Describes a plan, or what a build left, that goes.

    Attributes:
        path: The plan, or the folder or file that was left.
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

    What goes lies in the store itself, and has the name of a plan or of what a build leaves. With `dry_run` nothing is
    removed, only listed.

    Raises:
        BundleError: A folder of the store is a link or a file.
    """
    removals = list(_unfinished(store, dry_run))
    for entry in list(store.entries()):
        with store.lock_if_free(entry.key, create=not dry_run) as free:  # else it is being built
            current = store.entry(entry.component, entry.key) if free else entry
            if current is None:
                continue
            reason = outdated(current, bundle) or ("asked for" if everything else "")
            if reason:
                try:
                    gone = free and store.remove_unused(entry.component, entry.key, dry_run=dry_run)
                except BundleError as error:  # a folder in the place of one of its files: nothing that a build made
                    reason, gone = f"{reason}, but {error}", False
                removals.append(
                    Removal(path=current.path, reason=reason, size_bytes=current.size_bytes, in_use=not gone)
                )
    return removals


def _unfinished(store: PlanStore, dry_run: bool) -> Iterator[Removal]:
    """Remove what builds left that were ended, unless their key's lock says that they are under way.

    With `dry_run` none is removed, only listed.
    """
    for left in list(store.unfinished()):
        if not store.has_lock(left.key):
            continue
        with store.lock_if_free(left.key, create=False) as free, store.opened(left.component) as folder:
            size = leftover_bytes(folder, left.name)
            if size is None:  # no build leaves such a thing
                continue
            if free and not dry_run:
                remove_leftover(folder, left.name)
            reason = "its build was ended" if free else "it is being built"
            yield Removal(path=folder.path / left.name, reason=reason, size_bytes=size, in_use=not free)

"""Gives a new bundle the files of an old one, without copying them where the file system allows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import BundleError
from ..system.files import share_file
from .folder import Folder


def files_below(bundle: Path, folders: Iterable[str]) -> Iterator[str]:
    """Yield the place in a bundle of each file in folders of it, at any depth; not of hidden ones, which are locks.

    Raises:
        BundleError: Something there is neither a file nor a folder: a link, for one.
    """
    with Folder.open(bundle) as root:
        for name in folders:
            if root.has_folder(name):
                yield from _below(root, name)


def _below(root: Folder, place: str) -> Iterator[str]:
    with root.folder(place) as folder:
        for name in folder.names():
            if name.startswith("."):
                continue
            inner = f"{place}/{name}"
            try:
                is_folder = root.has_folder(inner)
            except BundleError:
                root.size(inner)  # raises for what is no file
                is_folder = False
            if is_folder:
                yield from _below(root, inner)
            else:
                yield inner


def share_files(source: Path, target: Path, places: Iterable[str]) -> None:
    """Make the files at places of one bundle those of another, as `share_file` does; they must not exist there."""
    for place in places:
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        share_file(source / place, target / place)

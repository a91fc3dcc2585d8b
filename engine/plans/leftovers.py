"""Finds and removes what a build leaves when it is ended: a folder with an unfinished plan, or a temporary file.

Nothing else goes: a folder that holds anything but an unfinished plan was made by no build.
"""

from __future__ import annotations

from ..bundle.folder import Folder
from ..errors import BundleError

PLAN = "plan"
"""The name of a plan in the folder that it is built in."""


def leftover_bytes(folder: Folder, name: str) -> int | None:
    """Return the size in bytes of what a build left under a name; None if no build left it, or it is gone."""
    try:
        if not folder.has_folder(name):
            return None
    except BundleError:  # a file, or a link
        try:
            return folder.size(name)
        except (BundleError, FileNotFoundError):
            return None
    try:
        with folder.folder(name) as left:
            names = left.names()
            return None if names not in ([], [PLAN]) else sum(left.size(one) for one in names)
    except (BundleError, FileNotFoundError):
        return None


def remove_leftover(folder: Folder, name: str) -> None:
    """Remove what a build left under a name, which `leftover_bytes` has recognised."""
    try:
        with folder.folder(name) as left:
            left.remove(PLAN)
        folder.remove_folder(name)
    except BundleError:  # it is a file
        folder.remove(name)
    except FileNotFoundError:  # its build ended meanwhile
        pass

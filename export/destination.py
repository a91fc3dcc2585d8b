"""Refuses places that no bundle may be written to, before anything takes time."""

from __future__ import annotations

from pathlib import Path

from ..engine.bundle.bundle import MANIFEST
from ..engine.errors import ExportError, KontextError
from ..engine.system.files import is_taken


def check_destination(path: Path, *, overwrite: bool, error: type[KontextError] = ExportError) -> None:
    """Raise an error unless a bundle may be written at a path.

    Args:
        path: The folder that is to be made.
        overwrite: True if a bundle that is there may be replaced.
        error: The type of error.
    """
    if path.exists() and not overwrite:
        raise error(f"{path} exists; choose another name, or allow it with --overwrite")
    if is_taken(path) and not (path / MANIFEST).is_file():
        raise error(f"{path} exists and is not a bundle; it will not be overwritten")

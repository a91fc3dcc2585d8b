"""Reads the files of one plan: its manifest, who signed it, its bytes."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..bundle.folder import Folder
from ..errors import PlanError
from ..system.chunked_hash import hash_buffer
from ..system.locks import hold_shared
from .manifest import MAX_MANIFEST_BYTES, PlanManifest, parse_plan_manifest
from .signatures import is_signed


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPlan:
    """Holds a checked plan.

    `data` is its file, mapped; valid while the plan is open, and marked as in use for that long.
    """

    manifest: PlanManifest
    data: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Describes a plan in a store.

    Attributes:
        component: The component that it is of.
        key: Its key.
        path: Its file.
        manifest: What it was built from and for; None, and `problem` says why, if that cannot be read.
        signed: True if this user's key signed it.
        size_bytes: The size of its file.
        problem: Why it has no manifest.
    """

    component: str
    key: str
    path: Path
    manifest: PlanManifest | None
    signed: bool = False
    size_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Names what a build left when it was ended: a folder, or a manifest's temporary file, and the key of the plan."""

    component: str
    key: str
    name: str


def read_manifest(folder: Folder, component: str, key: str) -> tuple[PlanManifest, bool]:
    """Return the manifest beside a plan, and whether this user's key signed it.

    Raises:
        PlanError: It is missing, altered, or another plan's.
    """
    file = folder.path / f"{key}.json"
    try:
        data = folder.read(file.name, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise PlanError(
            f"{file.with_suffix('.plan')} has no manifest {file.name}: its build was not finished; build it again"
        ) from None
    except OSError as error:
        raise PlanError(f"{file} cannot be read ({error.strerror})") from error
    manifest = parse_plan_manifest(data, str(file))
    if (manifest.ingredients.component, manifest.key) != (component, key):
        raise PlanError(
            f"{file} describes {manifest.ingredients.component} {manifest.key}, not {component} {key}; "
            "files were exchanged: build the plan again"
        )
    return manifest, is_signed(folder, key, data)


def check_bytes(
    path: Path, manifest: PlanManifest, data: memoryview, on_bytes: Callable[[int], None] | None = None
) -> None:
    """Raise PlanError unless a plan's bytes are those of its manifest; all of them are read."""
    if len(data) != manifest.size_bytes:
        raise PlanError(
            f"{path} is cut short or altered: {len(data):,} bytes of {manifest.size_bytes:,}; build the plan again"
        )
    if hash_buffer(data, on_bytes) != manifest.chunked_sha256:
        raise PlanError(f"{path} was altered: its hash is not its manifest's; build the plan again")


@contextmanager
def mapped(path: Path, file: BinaryIO, advice: str) -> Iterator[memoryview]:
    """Give a plan's bytes, mapped and marked as in use while the block runs.

    Raises:
        PlanError: It is empty, or is being removed; `advice` says what to do.
    """
    if not hold_shared(file.fileno()):
        raise PlanError(f"{path} is being removed. {advice}")
    if os.fstat(file.fileno()).st_size == 0:
        raise PlanError(f"{path} is empty. {advice}")
    data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    view = memoryview(data)
    try:
        yield view
    finally:
        view.release()
        data.close()

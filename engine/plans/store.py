"""Keeps plans on disk: found by key, opened only if they are whole, ours and made for this machine."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..components import COMPONENTS
from ..errors import PlanError, UntrustedPlanError
from ..system.chunked_hash import hash_buffer
from ..system.files import atomic_file
from ..system.locks import exclusive, hold_shared, unused
from .machine import Machine, mismatches
from .manifest import PlanManifest, parse_plan_manifest

PLANS = "plans"
LOCKS = ".locks"
LOGS = "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPlan:
    """Holds a checked plan.

    `data` is its file, mapped; valid while the plan is open, and marked as in use for that long.
    """

    manifest: PlanManifest
    data: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Describes a plan in a store. `manifest` is None, and `problem` says why, if it cannot be read."""

    component: str
    path: Path
    manifest: PlanManifest | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStore:
    """Keeps the plans of one bundle, or, with `folder` elsewhere, plans that are opened only with `trust`.

    Plans hold machine code, which runs with the rights of whoever opens them.

    Attributes:
        bundle: The bundle's folder.
        folder: The folder of the plans.
        trust: True if the plans are said to be trusted, whoever may have written them.
    """

    bundle: Path
    folder: Path
    trust: bool = False

    @classmethod
    def of(cls, bundle: Path, *, trust: bool = False) -> PlanStore:
        return cls(bundle=bundle, folder=bundle / PLANS, trust=trust)

    def path(self, component: str, key: str) -> Path:
        return self.folder / component / f"{key}.plan"

    @property
    def logs(self) -> Path:
        """The folder of what compilers said, one file per build."""
        return self.folder / LOGS

    def lock(self, key: str, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Hold a key while its plan is built, which one process at a time can."""
        return exclusive(self.lock_path(key), on_wait)

    def lock_path(self, key: str) -> Path:
        return self.folder / LOCKS / f"{key}.lock"

    def entries(self) -> Iterator[Entry]:
        """Yield every finished plan, by component and key; manifests are checked, plans are not read."""
        for component in COMPONENTS:
            for path in sorted((self.folder / component).glob("*.plan")):
                entry = self.entry(component, path)
                if entry is not None:
                    yield entry

    def entry(self, component: str, path: Path) -> Entry | None:
        """Return a plan as it is now; None if it is gone."""
        if not path.is_file():
            return None
        try:
            return Entry(component=component, path=path, manifest=read_manifest(path, component))
        except PlanError as error:
            return Entry(component=component, path=path, manifest=None, problem=str(error))

    def find(self, component: str, key: str) -> PlanManifest | None:
        """Return the manifest of a sound plan under a key; None if there is none, or it must be built again."""
        path = self.path(component, key)
        try:
            self.check_trust(path)
            manifest = read_manifest(path, component)
            with self._mapped(path) as data:
                _check_bytes(path, manifest, data)
        except PlanError:
            return None
        return manifest

    def add(self, temporary: Path, manifest: PlanManifest) -> Path:
        """Take a finished plan in. It counts from the moment its manifest is in place."""
        path = self.path(manifest.ingredients.component, manifest.key)
        sidecar(path).unlink(missing_ok=True)  # an old manifest must not stand beside a new plan
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        with atomic_file(sidecar(path)) as file:
            file.write(manifest.to_json())
        return path

    @contextmanager
    def open(
        self, component: str, key: str, machine: Machine, refusal: Callable[[memoryview], str] | None = None
    ) -> Iterator[OpenPlan]:
        """Open a plan after every check: trust, manifest, machine, the hash of all bytes, and then `refusal`.

        Args:
            component: The component that the plan is of.
            key: The key of the plan.
            machine: What the plan is to run on.
            refusal: The library's own check (`Flavour.refusal`), which answers why it will not open a plan, or "". It
                sees only bytes that are as we wrote them.

        Yields:
            The plan, which is valid within the block.

        Raises:
            PlanError: A check failed; the message names what is wrong and the command that mends it.
            UntrustedPlanError: The plan may have been written by somebody else.
        """
        path = self.path(component, key)
        self.check_trust(path)
        manifest = read_manifest(path, component)
        found = [str(mismatch) for mismatch in mismatches(manifest, machine)]
        if found:
            raise PlanError(f"{path} was not built for this machine: {'; '.join(found)}. {self._build_command()}")
        with self._mapped(path) as data:
            _check_bytes(path, manifest, data)
            if refusal is not None and (reason := refusal(data)):
                raise PlanError(f"{machine.flavour} will not open {path}: {reason}. {self._build_command()}")
            yield OpenPlan(manifest=manifest, data=data)

    def problems(self, entry: Entry, on_bytes: Callable[[int], None] | None = None) -> Iterator[str]:
        """Yield everything wrong with a plan's files, whatever machine it is for.

        All of the plan's bytes are read.
        """
        try:
            self.check_trust(entry.path)
            manifest = read_manifest(entry.path, entry.component)
            with self._mapped(entry.path) as data:
                _check_bytes(entry.path, manifest, data, on_bytes)
        except PlanError as error:
            yield str(error)

    @contextmanager
    def _mapped(self, path: Path) -> Iterator[memoryview]:
        try:
            file = path.open("rb")
        except OSError as error:
            raise PlanError(f"{path} cannot be read ({error.strerror}). {self._build_command()}") from error
        with file:
            if not hold_shared(file.fileno()):
                raise PlanError(f"{path} is being removed. {self._build_command()}")
            if os.fstat(file.fileno()).st_size == 0:
                raise PlanError(f"{path} is empty. {self._build_command()}")
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            view = memoryview(mapped)
            try:
                yield view
            finally:
                view.release()
                mapped.close()

    def check_trust(self, path: Path) -> None:
        """Raise UntrustedPlanError unless a plan lies in the bundle's own store, and only its owner can write it."""
        if self.trust:
            return
        advice = "plans are executable code; if you trust where it comes from, add --trust (in Python, trust=True)"
        own = (self.bundle / PLANS).resolve()
        if not path.resolve().is_relative_to(own):
            raise UntrustedPlanError(f"{path} is not in the bundle's own store {own}: {advice}")
        if path.is_file():
            status = path.stat()
            if status.st_uid not in (os.getuid(), 0):
                raise UntrustedPlanError(f"{path} belongs to another user (uid {status.st_uid}): {advice}")
            if status.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
                raise UntrustedPlanError(f"{path} can be written by others than its owner: {advice}, or chmod go-w it")

    def _build_command(self) -> str:
        return f"Build it with: kontext-trt build {self.bundle} --gpu current"


def sidecar(plan: Path) -> Path:
    """Return the file of a plan's manifest, which lies beside it."""
    return plan.with_suffix(".json")


def read_manifest(plan: Path, component: str) -> PlanManifest:
    """Read the manifest beside a plan.

    Raises:
        PlanError: It is missing, altered, or another plan's.
    """
    file = sidecar(plan)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise PlanError(f"{plan} has no manifest {file.name}: its build was not finished; build it again") from None
    except OSError as error:
        raise PlanError(f"{file} cannot be read ({error.strerror})") from error
    manifest = parse_plan_manifest(data, str(file))
    if (manifest.ingredients.component, manifest.key) != (component, plan.stem):
        raise PlanError(
            f"{file} describes {manifest.ingredients.component} {manifest.key}, not {component} {plan.stem}; "
            "files were exchanged: build the plan again"
        )
    return manifest


def _check_bytes(
    path: Path, manifest: PlanManifest, data: memoryview, on_bytes: Callable[[int], None] | None = None
) -> None:
    if len(data) != manifest.size_bytes:
        raise PlanError(
            f"{path} is cut short or altered: {len(data):,} bytes of {manifest.size_bytes:,}; build the plan again"
        )
    if hash_buffer(data, on_bytes) != manifest.chunked_sha256:
        raise PlanError(f"{path} was altered: its hash is not its manifest's; build the plan again")


def remove_unused(path: Path) -> bool:
    """Delete a plan and its manifest, unless a process has it open; return whether they are gone."""
    with unused(path) as free:
        if free:
            sidecar(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    return free

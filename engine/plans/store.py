"""Keeps plans on disk: found by key, opened only if they are whole, signed by this user and made for this machine."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..bundle.folder import Folder
from ..components import KNOWN_COMPONENTS
from ..errors import BundleError, PlanError, UntrustedPlanError
from ..system.locks import exclusive_if_free
from .leftovers import PLAN
from .machine import Machine, mismatches
from .manifest import PlanManifest
from .plan_files import Entry, OpenPlan, Unfinished, check_bytes, mapped, read_manifest
from .signatures import SUFFIX, key_words, sign

PLANS = "plans"
LOCKS = ".locks"
LOGS = "logs"
_PLAN_NAME = re.compile(r"([0-9a-f]{32})\.plan")
_UNFINISHED_NAME = re.compile(r"\.([0-9a-f]{32})\.[\w.-]+")
_SUFFIXES = (".json", SUFFIX, ".plan")
"""The files of a plan, in the order in which they go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStore:
    """Keeps the plans of one bundle, in the bundle or in a folder elsewhere.

    Plans hold machine code, which runs with the rights of whoever opens them. So those that this user's key did not
    sign are opened only with `trust`. Nothing in the store is reached through a symbolic link.

    Attributes:
        bundle: The bundle's folder.
        folder: The folder of the plans.
        trust: True if the plans are said to be trusted, whoever may have written them.
    """

    bundle: Path
    folder: Path
    trust: bool = False

    @classmethod
    def of(cls, bundle: Path, folder: Path | None = None, *, trust: bool = False) -> PlanStore:
        """Return a bundle's own store, or the one in a folder elsewhere."""
        return cls(bundle=bundle, folder=bundle / PLANS if folder is None else folder, trust=trust)

    def path(self, component: str, key: str) -> Path:
        return self.folder / component / f"{key}.plan"

    @contextmanager
    def opened(self, place: str, *, create: bool = False) -> Iterator[Folder]:
        """Open a folder of the store, a component's or another; with `create` it is made if there is none.

        Raises:
            BundleError: It, or one on the way to it, is a link or a file.
            FileNotFoundError: There is none.
        """
        own = self.folder == self.bundle / PLANS
        if create and not own:
            self.folder.mkdir(parents=True, exist_ok=True)
        with (
            Folder.open(self.bundle if own else self.folder) as root,
            root.folder(f"{PLANS}/{place}" if own else place, create=create) as folder,
        ):
            yield folder

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold a key while its plan is built, which one process at a time can; `on_wait` is told of another's."""
        with self.opened(LOCKS, create=True) as locks, locks.lock(_lock_name(key), on_wait):
            yield

    @contextmanager
    def lock_if_free(self, key: str, *, create: bool = True) -> Iterator[bool]:
        """Hold a key if nobody has it, and say whether it is held.

        Without `create` nothing is written: a lock whose file is missing is nobody's.
        """
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        try:
            with self.opened(LOCKS, create=create) as locks:
                descriptor = locks.descriptor(_lock_name(key), flags)
        except FileNotFoundError:
            yield True
            return
        with exclusive_if_free(descriptor) as free:
            yield free

    def has_lock(self, key: str) -> bool:
        """Return whether a build of a key was ever started here."""
        try:
            with self.opened(LOCKS) as locks:
                locks.size(_lock_name(key))
        except FileNotFoundError:
            return False
        return True

    def entries(self) -> Iterator[Entry]:
        """Yield every plan, by component and key; manifests are checked, plans are not read.

        Raises:
            BundleError: A folder of the store is a link or a file.
        """
        for component in KNOWN_COMPONENTS:
            for name in self._names(component):
                if (found := _PLAN_NAME.fullmatch(name)) and (entry := self.entry(component, found[1])) is not None:
                    yield entry

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield what builds that were ended, or are under way, have left beside the plans."""
        for component in KNOWN_COMPONENTS:
            for name in self._names(component):
                if found := _UNFINISHED_NAME.fullmatch(name):
                    yield Unfinished(component=component, key=found[1], name=name)

    def _names(self, component: str) -> list[str]:
        try:
            with self.opened(component) as folder:
                return folder.names()
        except FileNotFoundError:
            return []

    def entry(self, component: str, key: str) -> Entry | None:
        """Return a plan as it is now; None if it is gone."""
        path, size = self.path(component, key), 0
        try:
            with self.opened(component) as folder:
                size = folder.size(path.name)
                manifest, signed = read_manifest(folder, component, key)
        except FileNotFoundError:
            return None
        except (PlanError, BundleError) as error:
            return Entry(component=component, key=key, path=path, manifest=None, size_bytes=size, problem=str(error))
        return Entry(component=component, key=key, path=path, manifest=manifest, signed=signed, size_bytes=size)

    def find(self, component: str, key: str) -> PlanManifest | None:
        """Return the manifest of a sound plan under a key; None if there is none, or it must be built again.

        Raises:
            UntrustedPlanError: There is one that this user's key did not sign.
        """
        try:
            with self._checked(component, key) as plan:
                return plan.manifest
        except UntrustedPlanError:
            raise
        except PlanError:
            return None

    def add(self, built: Folder, manifest: PlanManifest) -> Path:
        """Take in a finished plan, and sign it. It counts from the moment its manifest is in place.

        Args:
            built: The folder that holds it, as `PLAN`.
            manifest: What it was built from and for.

        Returns:
            The plan's file.

        Raises:
            OptionError: This user's key cannot be read or made.
        """
        component, key = manifest.ingredients.component, manifest.key
        with self.opened(component, create=True) as folder:
            for suffix in (".json", SUFFIX):
                folder.remove(f"{key}{suffix}")  # an old manifest must not stand beside a new plan
            descriptor = built.descriptor(PLAN)
            try:
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            built.move(PLAN, folder, f"{key}.plan")
            data = manifest.to_json()
            sign(folder, key, data)
            with folder.atomic_file(f"{key}.json") as file:
                file.write(data)
        return self.path(component, key)

    def sign(self, component: str, key: str) -> None:
        """Sign a plan that is sound, whoever wrote it: from now on it is opened as if this user had built it.

        Raises:
            PlanError: It is not sound.
            OptionError: This user's key cannot be read or made.
        """
        with replace(self, trust=True)._checked(component, key) as plan, self.opened(component) as folder:
            sign(folder, key, plan.manifest.to_json())

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
        found = [str(mismatch) for mismatch in mismatches(self.check_trust(component, key), machine)]
        if found:
            raise PlanError(f"{path} was not built for this machine: {'; '.join(found)}. {self._build_command()}")
        with self._checked(component, key) as plan:
            if refusal is not None and (reason := refusal(plan.data)):
                raise PlanError(f"{machine.flavour} will not open {path}: {reason}. {self._build_command()}")
            yield plan

    def problems(self, entry: Entry, on_bytes: Callable[[int], None] | None = None) -> Iterator[str]:
        """Yield everything wrong with a plan's files, whatever machine it is for.

        All of the plan's bytes are read.
        """
        try:
            with self._checked(entry.component, entry.key, on_bytes):
                pass
        except (PlanError, BundleError) as error:
            yield str(error)

    def check_trust(self, component: str, key: str) -> PlanManifest:
        """Return a plan's manifest, if the plan may be opened; none of its own bytes are read.

        Raises:
            PlanError: It has no sound manifest.
            UntrustedPlanError: This user's key did not sign it, or others can write it, and `trust` is not set.
        """
        path = self.path(component, key)
        try:
            with self.opened(component) as folder:
                manifest, signed = read_manifest(folder, component, key)
                mode = folder.status(path.name).st_mode
        except FileNotFoundError as error:
            raise PlanError(f"{path} cannot be read ({error.strerror}). {self._build_command()}") from error
        if self.trust:
            return manifest
        advice = "plans are executable code; if you trust who made it, add --trust (in Python, trust=True)"
        if not signed:
            raise UntrustedPlanError(
                f"{path} is not signed by your key{key_words()}: {advice}, or sign it with: "
                f"kontext-trt plans trust {self.bundle}{self._option()}"
            )
        if mode & (stat.S_IWOTH | stat.S_IWGRP):
            raise UntrustedPlanError(f"{path} can be written by others than its owner: {advice}, or chmod go-w it")
        return manifest

    @contextmanager
    def _checked(self, component: str, key: str, on_bytes: Callable[[int], None] | None = None) -> Iterator[OpenPlan]:
        """Open a plan that may be trusted and is whole, for whatever machine it is."""
        path, manifest = self.path(component, key), self.check_trust(component, key)
        try:
            with self.opened(component) as folder:
                file = folder.reader(path.name)
        except OSError as error:
            raise PlanError(f"{path} cannot be read ({error.strerror}). {self._build_command()}") from error
        with file, mapped(path, file, self._build_command()) as view:
            check_bytes(path, manifest, view, on_bytes)
            yield OpenPlan(manifest=manifest, data=view)

    def remove_unused(self, component: str, key: str, *, dry_run: bool = False) -> bool:
        """Delete a plan and what lies beside it, unless a process has it open; return whether it is gone.

        With `dry_run` it stays, and would be gone.
        """
        with self.opened(component) as folder:
            try:
                descriptor = folder.descriptor(f"{key}.plan")
            except BundleError:  # a link: it goes, what it points to stays
                descriptor = os.open(os.devnull, os.O_RDONLY)
            with exclusive_if_free(descriptor) as free:
                if free and not dry_run:
                    for suffix in _SUFFIXES:
                        folder.remove(f"{key}{suffix}")
        return free

    def _build_command(self) -> str:
        return f"Build it with: kontext-trt build {self.bundle} --gpu current{self._option()}"

    def _option(self) -> str:
        return "" if self.folder == self.bundle / PLANS else f" --store {self.folder}"


def _lock_name(key: str) -> str:
    return f"{key}.lock"

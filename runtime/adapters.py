"""Puts LoRAs into the branches of an opened bundle: which are set, which a request has, which the executor holds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..engine.branches import Branches
from ..engine.bundle.bundle import Bundle
from ..engine.bundle.manifest import LoraRecord
from ..engine.components import DENOISER
from ..engine.errors import BundleError, LoraError
from ..engine.lora.choice import LoraChoice
from ..engine.lora.read import identity, read_lora
from ..engine.lora.record import lora_records
from ..engine.lora.scales import ADAPTER_CONFIG
from .flow.executor import Executor
from .flow.workspace import Array
from .packing import pack

SETS_KEPT = 2
"""The sets of LoRAs whose matrices are kept in memory, so that going back to one reads no file.

One of rank 16 takes 175 MB of FLUX.1 Kontext's size in bf16.
"""


@dataclass(frozen=True, slots=True, eq=False)
class LoraSet:
    """Holds LoRAs as an executor takes them: what they are for people, and their matrices by component and input."""

    used: tuple[LoraRecord, ...] = ()
    matrices: Mapping[str, Mapping[str, Array]] = field(default_factory=dict, repr=False)


NOTHING = LoraSet()
_Identity = tuple[int, int, int, int]
_Key = tuple[tuple[Path, _Identity, _Identity | None, float], ...]


class Adapters:
    """Chooses LoRAs for the requests of one bundle. It may be used by several threads, but for `swap`.

    Attributes:
        chosen: The LoRAs of requests that do not name their own.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.chosen = NOTHING
        self._held: LoraSet | None = NOTHING  # what the executor has; None if that is not known
        self._kept: OrderedDict[_Key, LoraSet] = OrderedDict()
        self._lock = threading.Lock()

    def choose(self, loras: Sequence[LoraChoice] | None) -> LoraSet:
        """Return the LoRAs that are named, read and packed; those that are set for None.

        Raises:
            LoraError: They cannot be swapped into this bundle, or a file is none.
            BundleError: The bundle was exported without branches.
        """
        if loras is None:
            return self.chosen
        if not loras:
            return NOTHING
        with self._lock:
            key = tuple(map(_identity, loras))
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            read = self._read(loras)
            if tuple(map(_identity, loras)) == key:  # or it would be found for files that it is not of
                self._kept[key] = read
                while len(self._kept) > SETS_KEPT:
                    self._kept.popitem(last=False)
            return read

    def _read(self, loras: Iterable[LoraChoice]) -> LoraSet:
        branches = branches_of(self._bundle)
        files = [(read_lora(Path(one.path)), one.scale) for one in loras]
        return LoraSet(
            used=lora_records(files),
            matrices=pack(files, branches, self._bundle.graph(DENOISER).precision),
        )

    def forget(self) -> None:
        """Let go of the matrices of all LoRAs; what was set is still named, and cannot be used any more."""
        with self._lock:
            self.chosen, self._held = LoraSet(used=self.chosen.used), None
            self._kept.clear()

    def swap(self, wanted: LoraSet, executor: Executor) -> None:
        """Make an executor hold LoRAs, if it holds others. The caller sees to it that no request runs meanwhile.

        Raises:
            ExecutorError: There is no memory for them.
        """
        if self._held is wanted:
            return
        self._held = None
        executor.keep(wanted.matrices)
        self._held = wanted


def branches_of(bundle: Bundle) -> Branches:
    """Return where LoRAs can be swapped into a bundle. Raises BundleError if that is nowhere."""
    if bundle.manifest.branches is None:
        raise BundleError(
            f"{bundle.path} was exported without --lora-rank, so no LoRA can be swapped in; export it again from "
            f"{bundle.manifest.source} with --lora-rank 16, or fuse: kontext-trt lora fuse {bundle.path} FILE OUT"
        )
    return bundle.manifest.branches


def _identity(lora: LoraChoice) -> tuple[Path, _Identity, _Identity | None, float]:
    """Return what tells a file, and the configuration beside it, from what lay there before.

    Raises LoraError if there is no file.
    """
    path = Path(lora.path)
    beside: _Identity | None = None
    with suppress(LoraError):
        beside = identity(path.with_name(ADAPTER_CONFIG))
    return path, identity(path), beside, lora.scale

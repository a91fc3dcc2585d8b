"""Keeps which of a library's algorithms was the fastest on a kind of GPU, so that all processes choose alike.

Algorithms round differently: with the same choices a seed gives the same picture in another process, too, and none
measures again what one has measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ....engine.bundle.shared_file import SharedFile
from ....engine.errors import KontextError
from ....engine.system.gpus import find_gpus
from ..compile import kept_file
from .device import KernelDevice

logger = logging.getLogger(__name__)


class Choices:
    """Holds the numbers of algorithms by the kind of what they compute.

    Args:
        file: Where they are kept for other processes; None if nowhere.
    """

    def __init__(self, file: SharedFile | None) -> None:
        self._file = file
        self._known: dict[str, int] = {} if file is None else _decoded(file.read())

    @classmethod
    def open(cls, device: KernelDevice, library: str, versions: Sequence[object]) -> Choices:
        """Return what this user's processes have chosen on such a GPU. If it cannot be kept, that is said once.

        Args:
            device: The device.
            library: Whose algorithms they are.
            versions: What the numbers depend on, beside the GPU.
        """
        try:
            name = find_gpus()[0][device.cuda.device].name
            return cls(kept_file([library, name, device.architecture, *map(str, versions)], ".json"))
        except (KontextError, OSError, RuntimeError, IndexError) as error:  # RuntimeError: there is no home folder
            logger.warning("what was measured of %s is not kept: %s", library, error)
            return cls(None)

    def fastest(self, kind: object, numbers: Sequence[int], measure: Callable[[], Mapping[int, float]]) -> int:
        """Return the number of the fastest algorithm for a kind: the one that is kept, or else what is measured now.

        Args:
            kind: What is computed; its text is what the number is kept by.
            numbers: Those that there are.
            measure: Returns the time of each that runs, at least one.
        """
        name = str(kind)
        kept = self._known.get(name)
        if kept is not None and kept in numbers:
            return kept
        times = measure()
        best = min(times, key=times.__getitem__)
        kept = self._kept(name, best)
        return kept if kept in times else best

    def _kept(self, name: str, number: int) -> int:
        """Keep a number, unless another process has kept one meanwhile, and return the one that is kept."""
        self._known[name] = number
        if self._file is not None:
            try:
                self._file.update(self._merged)
            except (KontextError, OSError) as error:
                logger.warning("what was measured is not kept: %s", error)
                self._file = None
        return self._known[name]

    def _merged(self, kept: bytes) -> bytes:
        self._known |= _decoded(kept)
        return msgspec.json.encode(self._known)


def _decoded(data: bytes) -> dict[str, int]:
    """Return what a file holds, nothing if it is empty or of another kind."""
    try:
        return msgspec.json.decode(data, type=dict[str, int]) if data else {}
    except msgspec.MsgspecError:
        return {}

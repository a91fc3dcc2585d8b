"""Finds the LoRAs that clients name: files of one folder, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..engine.bundle.bundle import Bundle
from ..engine.errors import CheckpointError, OptionError
from ..engine.lora.choice import LoraChoice
from ..runtime.adapters import branches_of
from .refusals import Refusal

MAX_LORAS = 16
"""The most LoRAs of one request."""


class LoraFolder:
    """Holds the folder whose files clients may name, and nothing where there is none.

    The folder is looked at for each request, so files may come and go.

    Args:
        folder: The folder; None for a server without LoRAs.
        bundle: What they are swapped into.

    Raises:
        OptionError: There is no such folder.
        BundleError: The bundle was exported without branches.
    """

    def __init__(self, folder: Path | None, bundle: Bundle) -> None:
        self._folder = None
        if folder is not None:
            if not folder.is_dir():
                raise OptionError(f"{folder} is no folder; --lora-folder is a folder of LoRA files")
            branches_of(bundle)
            self._folder = folder.resolve()

    def names(self) -> list[str]:
        """Return the names of the files, sorted. Hidden ones and links that lead out of the folder are not among them.

        Raises:
            Refusal: This server has no folder.
        """
        folder = self._known()
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and _inside(path, folder))

    def choices(self, given: str | list[str] | None) -> tuple[LoraChoice, ...] | None:
        """Return the LoRAs that a request names, None if it says nothing of them.

        Args:
            given: NAME or NAME:SCALE, or several; an empty list for none at all.

        Raises:
            Refusal: There is no such file, a scale is none, or this server has no folder.
        """
        if given is None:
            return None
        names = frozenset(self.names())
        return tuple(self._choice(text, names) for text in ([given] if isinstance(given, str) else given))

    def _choice(self, text: str, names: frozenset[str]) -> LoraChoice:
        name, colon, scale = text.rpartition(":")
        if text in names or not colon:
            name, scale = text, "1"
        if name not in names:
            raise Refusal(
                f"there is no LoRA {name[:80]!r} here; GET /v1/loras lists them, and each is named by its file's whole "
                "name",
                param="lora",
                code="lora_not_found",
            )
        folder = self._known()
        try:
            return LoraChoice(path=folder / name, scale=float(scale))
        except ValueError:
            raise Refusal(
                f"{text[-80:]!r} is no NAME:SCALE, such as style.safetensors:0.8; a scale is a number between -100 and "
                "100 other than 0",
                param="lora",
            ) from None

    def _known(self) -> Path:
        if self._folder is None:
            raise Refusal(
                "this server has no LoRAs; it is started with --lora-folder FOLDER where it should",
                param="lora",
                code="lora_not_supported",
            )
        return self._folder


def lora_refusal(error: CheckpointError, loras: Iterable[LoraChoice] | None) -> Refusal:
    """Return how a LoRA that cannot be used is said to a client, which learns nothing of where files lie."""
    words = str(error)
    for lora in loras or ():
        words = words.replace(f"{Path(lora.path).parent}/", "")
    return Refusal(words, param="lora", code="invalid_lora")


def _inside(path: Path, folder: Path) -> bool:
    """Return whether a path of a folder is a file that lies there, too."""
    return path.is_file() and path.resolve().is_relative_to(folder)

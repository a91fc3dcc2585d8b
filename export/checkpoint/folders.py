"""Finds a network's files in a folder: one file, shards with an index, and variants of either.

A variant (`fp16`) is in diffusers' and transformers' names before `.safetensors`; an index has it before or after
`.safetensors.index`: `model.fp16.safetensors.index.json`, `model.safetensors.index.fp16.json`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...engine import documents
from ...engine.errors import CheckpointError
from ...engine.system.files import visible_files
from .contents import Contents, merged, open_contents

logger = logging.getLogger(__name__)
Parsed = TypeVar("Parsed")

MAX_JSON_BYTES = 16 << 20
"""The largest JSON file of a checkpoint that is read: the index of all tensors' shards takes 120 KB."""
SUFFIXES = (".safetensors", ".gguf")
"""The names' ends of files that may hold weights."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_STEM = r"(?:diffusion_pytorch_)?model"
_SINGLE = re.compile(rf"(?!.*-\d+-of-\d+){_STEM}(?:\.(?P<variant>[^.]+))?\.safetensors")
_INDEX = re.compile(rf"{_STEM}(?:\.(?P<one>[^.]+))?\.safetensors\.index(?:\.(?P<other>[^.]+))?\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Holds the part of a shards' index that says where each tensor lies."""

    weight_map: dict[str, str]


def read_json_file(file: Path, kind: type[Parsed], what: str) -> Parsed:
    """Return what a JSON file of a checkpoint says; `what` says in the error what it should be.

    Raises:
        CheckpointError: It cannot be read, or is not such a document.
    """

    def foreign(reason: str) -> CheckpointError:
        return CheckpointError(f"{file} is not {what}: {reason}")

    return documents.read_json_file(file, kind, at_most=MAX_JSON_BYTES, unread=foreign, fail=foreign)


def weights_files(folder: Path) -> list[Path]:
    """Return what may hold weights in a folder, sorted by name; hidden files do not."""
    return [file for file in visible_files(folder, "*") if file.suffix.lower() in SUFFIXES and file.is_file()]


def variants(folder: Path) -> dict[str, Path]:
    """Return the variants of a network in a folder, "" for the plain one: each an index or a file."""
    return {variant: folder / name for variant, name in variants_of(_names(folder)).items()}


def variants_of(names: Sequence[str]) -> dict[str, str]:
    """Return the variants of a network among the names of a folder's files, as `variants` does."""
    singles, indexes = ({name: pattern.fullmatch(name) for name in names} for pattern in (_SINGLE, _INDEX))
    found = {match["variant"] or "": name for name, match in singles.items() if match}
    return found | {match["one"] or match["other"] or "": name for name, match in indexes.items() if match}


def _names(folder: Path) -> list[str]:
    return [file.name for file in visible_files(folder, "*") if file.is_file()]


def shards_of(index: Path) -> list[str]:
    """Return the names of the shards that an index names, which lie beside it.

    Raises:
        CheckpointError: It is no index, or names files elsewhere.
    """
    shards = sorted(set(read_json_file(index, _Index, "an index of safetensors shards").weight_map.values()))
    for shard in shards:
        if shard != Path(shard).name:
            raise CheckpointError(f"{index} names a shard {shard}, which is not beside it")
    return shards


def open_part(path: Path, variant: str | None = None) -> Contents:
    """Open the tensors of `path`: of itself, or of the shards or single file in a folder.

    Args:
        path: A file or a folder.
        variant: The variant to take where there is one; the plain files elsewhere.

    Raises:
        CheckpointError: A file is unreadable, or a folder has none, or several of which none is chosen.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if not path.is_dir():
        return open_contents(path)
    chosen = path / choose_weights(_names(path), str(path), variant)
    if chosen.suffix != ".json":
        return open_contents(chosen)
    return merged(str(path), (open_contents(path / shard) for shard in shards_of(chosen)))


def choose_weights(names: Sequence[str], folder: str, variant: str | None) -> str:
    """Return which of a folder's files holds a network, or is the index of its shards; `folder` is for messages.

    Raises:
        CheckpointError: There is none, or there are several of which none is chosen.
    """
    found = variants_of(names)
    if variant in found:
        return found[variant]
    if "" in found:
        if variant is not None:
            logger.warning("%s has no variant %s: %s is taken", folder, variant, found[""])
        return found[""]
    if len(found) == 1:
        ((only, name),) = found.items()
        logger.warning("%s has nothing but the variant %s, which is taken", folder, only)
        return name
    if found:
        raise CheckpointError(f"{folder} has the variants {', '.join(sorted(found))}; choose one with --variant")
    weights = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    if len(weights) != 1:
        raise CheckpointError(
            f"{folder} should hold one .safetensors file, or shards with an index; it holds {_held(names, weights)}"
        )
    return weights[0]


def _held(names: Sequence[str], weights: Sequence[str]) -> str:
    if weights:
        return f"{len(weights)} of them and no index"
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        return f"none, but {', '.join(pickles[:3])}: pickles can run code and are not read; download the safetensors"
    return "none"

"""Opens files of tensors, whatever their container: each kind of file is known by its first bytes.

What is not read is refused by its name, with what to do instead: `engine.bundle.file_kinds` is the table of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...engine.bundle.file_kinds import refuse_other_kinds
from ...engine.bundle.tensor_file import TensorFile
from ...engine.errors import CheckpointError
from .file_contents import Contents
from .gguf import open_gguf
from .views import TensorView, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Describes a kind of file that is read.

    Attributes:
        name: What people call it.
        found: Whether a file is one, by its first bytes.
        open: Opens one.
    """

    name: str
    found: Callable[[bytes], bool]
    open: Callable[[Path], Contents]


def _open_safetensors(path: Path) -> Contents:
    file = TensorFile.open(path)
    tensors = {
        name: View(path=path, dtype=entry.dtype, shape=entry.shape, offset=entry.offset)
        for name, entry in file.tensors.items()
    }
    return Contents(source=str(path), tensors=tensors, metadata=file.metadata, files=(file,))


CONTAINERS = (
    Container(name="GGUF", found=lambda head: head.startswith(b"GGUF"), open=open_gguf),
    Container(name="safetensors", found=lambda head: True, open=_open_safetensors),
)
"""The containers in the order in which they are looked for; the first that is found counts."""


def open_contents(path: Path) -> Contents:
    """Open one file.

    Raises:
        CheckpointError: It cannot be read, is damaged, or is of a kind that is refused.
    """
    head = refuse_other_kinds(path)
    return next(one for one in CONTAINERS if one.found(head)).open(path)


def merged(source: str, shards: Iterable[Contents]) -> Contents:
    """Return the contents of all shards as one; raise CheckpointError for a tensor that is in two of them."""
    tensors: dict[str, TensorView] = {}
    metadata: dict[str, str] = {}
    files: tuple[TensorFile, ...] = ()
    for shard in shards:
        twice = next((name for name in shard.tensors if name in tensors), None)
        if twice is not None:
            raise CheckpointError(
                f"{source}: tensor {twice} is in {tensors[twice].path.name} and in {shard.tensors[twice].path.name}; "
                "take away the shard that is not of this checkpoint"
            )
        tensors |= shard.tensors
        metadata |= shard.metadata
        files += shard.files
    return Contents(source=source, tensors=tensors, metadata=metadata, files=files)

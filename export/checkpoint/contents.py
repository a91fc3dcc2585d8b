"""Opens files of tensors, whatever their container: each kind of file is known by its first bytes.

This is the one table of containers. What is not read is refused by its name, with what to do instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ...engine.bundle.tensor_file import TensorFile
from ...engine.errors import CheckpointError
from .file_contents import Contents
from .gguf import open_gguf
from .views import TensorView, View

HEAD_BYTES = 512
"""The number of first bytes by which a container is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Describes a kind of file.

    Attributes:
        name: What people call it.
        found: Whether a file is one, by its first `HEAD_BYTES` bytes.
        open: Opens one; None for what is refused.
        refusal: What is said of one that is refused, after its path: what it is and what to do instead.
    """

    name: str
    found: Callable[[bytes], bool]
    open: Callable[[Path], Contents] | None = None
    refusal: str = ""


_SAFETENSORS_INSTEAD = "download the .safetensors file of the same weights, or save them with safetensors.torch"
_AGAIN = "download the file itself again"


def _text(pattern: bytes) -> Callable[[bytes], bool]:
    return lambda head: re.match(rb"(\xef\xbb\xbf)?\s*" + pattern, head, re.IGNORECASE) is not None


def _open_safetensors(path: Path) -> Contents:
    file = TensorFile.open(path)
    tensors = {
        name: View(path=path, dtype=entry.dtype, shape=entry.shape, offset=entry.offset)
        for name, entry in file.tensors.items()
    }
    return Contents(source=str(path), tensors=tensors, metadata=file.metadata, files=(file,))


CONTAINERS = (
    Container(
        name="GGUF",
        found=lambda head: head.startswith(b"GGUF"),
        open=open_gguf,
    ),
    Container(
        name="Git LFS pointer",
        found=lambda head: head.startswith(b"version https://git-lfs.github.com/"),
        refusal="is a Git LFS pointer, not the weights: run `git lfs pull` in its repository, or download the file",
    ),
    Container(
        name="HTML page",
        found=_text(rb"<(!doctype html|html|head|body)"),
        refusal="is an HTML page, such as a login or an error, not the weights: " + _AGAIN + ", logged in if need be",
    ),
    Container(
        name="XML document",
        found=_text(rb"<\?xml"),
        refusal="is an XML document, as stores answer with errors, not the weights: " + _AGAIN,
    ),
    Container(
        name="JSON document",
        found=_text(rb'[\[{]\s*["\]}\[{]'),
        refusal="is a JSON document, not weights; name the .safetensors file, or the folder with it and its index",
    ),
    Container(
        name="PyTorch pickle",
        found=lambda head: head.startswith(b"PK\x03\x04") and b"data.pkl" in head,
        refusal="is a PyTorch pickle (.pt, .bin, .ckpt), which can run code and is not read: " + _SAFETENSORS_INSTEAD,
    ),
    Container(
        name="pickle",
        found=lambda head: re.match(rb"\x80[\x02-\x05][\x8a\x95cK(}\]]", head) is not None,
        refusal="is a pickle (.pt, .bin, .ckpt), which can run code and is not read: " + _SAFETENSORS_INSTEAD,
    ),
    Container(
        name="ZIP archive",
        found=lambda head: head.startswith((b"PK\x03\x04", b"PK\x05\x06")),
        refusal="is a ZIP archive; unpack it and name what was in it",
    ),
    Container(
        name="compressed archive",
        found=lambda head: head.startswith((b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ", b"BZh", b"(\xb5/\xfd")),
        refusal="is a compressed archive; unpack it and name what was in it",
    ),
    Container(name="safetensors", found=lambda head: True, open=_open_safetensors),
)
"""The containers in the order in which they are looked for; the first that is found counts."""


def open_contents(path: Path) -> Contents:
    """Open one file.

    Raises:
        CheckpointError: It cannot be read, is damaged, or is of a kind that is refused.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    container = next(one for one in CONTAINERS if one.found(head))
    if container.open is None:
        raise CheckpointError(f"{path} {container.refusal}")
    return container.open(path)


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

"""Tells files that people take for weights by their first bytes: what each is, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError

HEAD_BYTES = 512
"""The number of first bytes by which a kind of file is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherKind:
    """Describes a kind of file that is not read.

    Attributes:
        name: What people call it.
        found: Whether a file is one, by its first `HEAD_BYTES` bytes.
        refusal: What is said of one, after its path: what it is and what to do instead.
    """

    name: str
    found: Callable[[bytes], bool]
    refusal: str


_SAFETENSORS_INSTEAD = "download the .safetensors file of the same weights, or save them with safetensors.torch"
_AGAIN = "download the file itself again"


def _text(pattern: bytes) -> Callable[[bytes], bool]:
    return lambda head: re.match(rb"(\xef\xbb\xbf)?\s*" + pattern, head, re.IGNORECASE) is not None


OTHER_KINDS = (
    OtherKind(
        name="Git LFS pointer",
        found=lambda head: head.startswith(b"version https://git-lfs.github.com/"),
        refusal="is a Git LFS pointer, not the weights: run `git lfs pull` in its repository, or download the file",
    ),
    OtherKind(
        name="HTML page",
        found=_text(rb"<(!doctype html|html|head|body)"),
        refusal="is an HTML page, such as a login or an error, not the weights: " + _AGAIN + ", logged in if need be",
    ),
    OtherKind(
        name="XML document",
        found=_text(rb"<\?xml"),
        refusal="is an XML document, as stores answer with errors, not the weights: " + _AGAIN,
    ),
    OtherKind(
        name="JSON document",
        found=_text(rb'[\[{]\s*["\]}\[{]'),
        refusal="is a JSON document, not weights; name the .safetensors file, or the folder with it and its index",
    ),
    OtherKind(
        name="PyTorch pickle",
        found=lambda head: head.startswith(b"PK\x03\x04") and b"data.pkl" in head,
        refusal="is a PyTorch pickle (.pt, .bin, .ckpt), which can run code and is not read: " + _SAFETENSORS_INSTEAD,
    ),
    OtherKind(
        name="pickle",
        found=lambda head: re.match(rb"\x80[\x02-\x05][\x8a\x95cK(}\]]", head) is not None,
        refusal="is a pickle (.pt, .bin, .ckpt), which can run code and is not read: " + _SAFETENSORS_INSTEAD,
    ),
    OtherKind(
        name="ZIP archive",
        found=lambda head: head.startswith((b"PK\x03\x04", b"PK\x05\x06")),
        refusal="is a ZIP archive; unpack it and name what was in it",
    ),
    OtherKind(
        name="compressed archive",
        found=lambda head: head.startswith((b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ", b"BZh", b"(\xb5/\xfd")),
        refusal="is a compressed archive; unpack it and name what was in it",
    ),
)
"""The kinds in the order in which they are looked for; the first that is found counts."""


def read_head(path: Path) -> bytes:
    """Return a file's first bytes; raise CheckpointError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def refuse_other_kinds(path: Path) -> bytes:
    """Return a file's first bytes.

    Raises:
        CheckpointError: It cannot be read, or is of a kind that is not; the message says which, and what to do.
    """
    head = read_head(path)
    kind = next((one for one in OTHER_KINDS if one.found(head)), None)
    if kind is not None:
        raise CheckpointError(f"{path} {kind.refusal}")
    return head

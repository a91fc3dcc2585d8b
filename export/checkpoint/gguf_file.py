"""Reads the header of a GGUF file: what is said of it, and where its tensors lie.

It is read without the gguf package, whose reader (0.19.0) did not end on a damaged header. Source of the format:
docs/gguf.md of ggml-org/ggml.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ...engine.errors import CheckpointError
from ...engine.printable import printable_line

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ITEMS = 4 << 20
"""The most entries, texts in lists and tensors that a header may have; the largest vocabularies have 262,144."""
MAX_NAME_BYTES = 1024
MAX_TEXT_BYTES = 1 << 16
"""The longest text that is kept; longer ones, such as a chat's template, are passed over."""
MAX_DIMS = 8
MAX_DEPTH = 4
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""The begin of keys, before a tensor's name, where city96's writer gave it another shape than it had."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufKind:
    """Describes a type of GGUF's: how many values a block has, and how many bytes."""

    name: str
    block: int
    block_bytes: int


KINDS: Mapping[int, GgufKind] = {
    number: GgufKind(name=name, block=block, block_bytes=block_bytes)
    for number, name, block, block_bytes in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (30, "BF16", 1, 2),
        (8, "Q8_0", 32, 34),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
    )
}
"""The types that are read, by their numbers in a file."""
OTHER_KINDS: Mapping[int, str] = {
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}
"""The types that are refused, by their numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """Describes one tensor in a file.

    Attributes:
        kind: Its type.
        shape: Its shape, the slowest axis first, as torch has it; files have it the other way round.
        offset: Where in the file its first byte lies.
    """

    kind: GgufKind
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) // self.kind.block * self.kind.block_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """Holds the header of a GGUF file, checked against the file's size; no data is read."""

    path: Path
    architecture: str | None
    tensors: Mapping[str, GgufTensor]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Read the header of the file at `path`.

        Raises:
            CheckpointError: It is not a whole GGUF file, or has tensors of a type that is not read.
        """
        try:
            with path.open("rb") as file:
                return _Header(path=path, file=file, size=path.stat().st_size).read()
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


@dataclass(slots=True, kw_only=True)
class _Header:
    """Reads one header, from begin to end, and counts what it has read."""

    path: Path
    file: BinaryIO
    size: int
    items: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    alignment: int = 32

    def read(self) -> GgufFile:
        if self._bytes(4) != MAGIC:
            raise self._malformed("it does not begin with GGUF")
        version = self._number("I")
        if version not in VERSIONS:
            swapped = struct.unpack(">I", struct.pack("<I", version))[0] in VERSIONS
            what = "for big-endian machines" if swapped else f"version {version}"
            raise CheckpointError(f"{self.path} is a GGUF file {what}; little-endian files of version 2 and 3 are read")
        num_tensors, num_entries = self._count("tensors"), self._count("entries")
        for _ in range(num_entries):
            self._entry()
        infos = dict(self._tensor() for _ in range(num_tensors))
        if len(infos) < num_tensors:
            raise self._malformed("two tensors have one name")
        begin = -(-self.file.tell() // self.alignment) * self.alignment
        return GgufFile(
            path=self.path,
            architecture=self.texts.get("general.architecture"),
            tensors={name: self._placed(name, *info, begin) for name, info in infos.items()},
        )

    def _entry(self) -> None:
        key, kind = self._text(MAX_NAME_BYTES, "a key"), self._number("I")
        if kind == _TEXT:
            length = self._length()
            if length <= MAX_TEXT_BYTES:
                self.texts[key] = self._bytes(length).decode("utf-8", "replace")
            else:
                self._skip(length)
        elif kind == _LIST:
            self._list(key, depth=0)
        elif kind in _SCALARS:
            value = self._number(_SCALARS[kind])
            if key == "general.alignment":
                self._align(value)
        else:
            raise self._malformed(f"the entry {printable_line(key)} has the unknown type {kind}")

    def _list(self, key: str, depth: int) -> None:
        kind, count = self._number("I"), self._length()
        if kind in _SCALARS:
            letter = _SCALARS[kind]
            if key.startswith(ORIGINAL_SHAPE) and letter in "bBhHiIqQ" and count <= MAX_DIMS and not depth:
                name = key.removeprefix(ORIGINAL_SHAPE)
                self.shapes[name] = tuple(int(self._number(letter)) for _ in range(count))
            else:
                self._skip(count * struct.calcsize(letter))
        elif kind == _TEXT:
            self._counted(count, "elements of lists")
            for _ in range(count):
                self._skip(self._length())
        elif kind == _LIST and depth < MAX_DEPTH:
            self._counted(count, "elements of lists")
            for _ in range(count):
                self._list("", depth + 1)
        else:
            raise self._malformed(f"the list {printable_line(key)} has elements of the unknown type {kind}")

    def _align(self, value: float) -> None:
        if not (isinstance(value, int) and 1 <= value <= 1 << 20 and value & (value - 1) == 0):
            raise self._malformed(f"its alignment is {value}, not a power of two up to 1,048,576")
        self.alignment = value

    def _tensor(self) -> tuple[str, tuple[tuple[int, ...], int, int]]:
        name, num_dims = self._text(MAX_NAME_BYTES, "a tensor's name"), self._number("I")
        if num_dims > MAX_DIMS:
            raise self._malformed(f"tensor {printable_line(name)} has {num_dims} axes")
        shape = tuple(reversed([int(self._number("Q")) for _ in range(num_dims)]))
        return name, (shape, int(self._number("I")), int(self._number("Q")))

    def _placed(self, name: str, shape: tuple[int, ...], number: int, offset: int, begin: int) -> GgufTensor:
        shown = printable_line(name)
        if number not in KINDS:
            kind = OTHER_KINDS.get(number, f"number {number}")
            raise CheckpointError(
                f"{self.path}: tensor {shown} is of GGUF's type {kind}, which is not read; types that are: "
                f"{', '.join(one.name for one in KINDS.values())}. Take the file in one of these, such as Q8_0"
            )
        tensor = GgufTensor(kind=KINDS[number], shape=shape, offset=begin + offset)
        if prod(shape) and shape and shape[-1] % tensor.kind.block:
            raise self._malformed(
                f"tensor {shown} {tensor.kind.name} {list(shape)} does not fill blocks of {tensor.kind.block}"
            )
        if tensor.offset + tensor.size_bytes > self.size:
            raise CheckpointError(
                f"{self.path} is cut short: tensor {shown} ends at byte {tensor.offset + tensor.size_bytes:,}, the "
                f"file has {self.size:,}; download it again"
            )
        original = self.shapes.get(name, shape)
        if prod(original) != prod(shape) or min(original, default=0) < 0:
            raise self._malformed(f"tensor {shown} is {list(shape)}, and {list(original)} by what is said of it")
        return GgufTensor(kind=tensor.kind, shape=original, offset=tensor.offset)

    def _count(self, what: str) -> int:
        return self._counted(int(self._number("Q")), what)

    def _counted(self, count: int, what: str) -> int:
        self.items += count
        if self.items > MAX_ITEMS:
            raise self._malformed(f"it names {count:,} {what}")
        return count

    def _length(self) -> int:
        return int(self._number("Q"))

    def _text(self, limit: int, what: str) -> str:
        length = self._length()
        if length > limit:
            raise self._malformed(f"{what} has {length:,} bytes")
        try:
            return self._bytes(length).decode()
        except UnicodeDecodeError as error:
            raise self._malformed(f"{what} is not UTF-8") from error

    def _number(self, letter: str) -> Any:
        return struct.unpack(f"<{letter}", self._bytes(struct.calcsize(letter)))[0]

    def _bytes(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.size else b""
        if len(data) < count:
            raise self._cut_short()
        return data

    def _skip(self, count: int) -> None:
        if self.file.tell() + count > self.size:
            raise self._cut_short()
        self.file.seek(count, 1)

    def _cut_short(self) -> CheckpointError:
        return CheckpointError(f"{self.path} is cut short: its header is longer than its {self.size:,} bytes")

    def _malformed(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is not a GGUF file that can be read: {reason}")

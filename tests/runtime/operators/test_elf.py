"""The library without code: what its headers say, and that the loader takes it."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import pytest

from kontext_trt.engine.errors import ExecutorError
from kontext_trt.runtime.operators import elf

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda value: value + 1)
ADDRESS = ctypes.cast(CALLBACK, ctypes.c_void_p).value or 0
GNU_STACK = 0x6474E551
MAPS = Path("/proc/self/maps")


def segments(image: bytes) -> dict[int, int]:
    """The flags of every segment, by its type."""
    (at,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<2H", image, 54)
    return dict(struct.unpack_from("<2I", image, at + number * size) for number in range(count))


@pytest.mark.parametrize("machine", elf.MACHINES)
def test_nothing_of_it_is_executable(machine: int):
    image = elf.image("Entry", ADDRESS, machine)
    assert image[:7] == b"\x7fELF\2\1\1"
    assert elf.machine(image[:20]) == machine
    assert GNU_STACK in segments(image)
    assert all(not flags & 1 for flags in segments(image).values())


def test_the_loader_finds_the_symbol_where_it_is():
    library = ctypes.CDLL(elf.library("Entry", ADDRESS))
    assert library.Entry(41) == 42
    lines = [line.split() for line in MAPS.read_text().splitlines()]
    mapped = [line[1] for line in lines if "kontext-trt-operators" in " ".join(line)]
    assert mapped
    assert all("x" not in flags for flags in mapped)
    assert [line[1] for line in lines if line[-1] == "[stack]"] == ["rw-p"]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"\x7fELF\1\1\1" + bytes(11) + b"\x3e\0", r"ELF 0101, machine 62"),
        (b"\x7fELF\2\2\1" + bytes(11) + b"\0\x3e", r"ELF 0202"),
        (b"\x7fELF\2\1\1" + bytes(11) + b"\xf3\0", r"x86_64 or aarch64; .*machine 243"),
        (b"#!/bin/sh", "another machine"),
    ],
)
def test_another_machine_is_refused(header: bytes, words: str):
    with pytest.raises(ExecutorError, match=words):
        elf.machine(header)


def test_a_loader_that_moves_absolute_addresses_is_refused(monkeypatch: pytest.MonkeyPatch):
    image = elf.image
    monkeypatch.setattr(elf, "image", lambda symbol, address, machine: image(symbol, address + 16, machine))
    with pytest.raises(ExecutorError, match=r"glibc 2\.28 or newer"):
        elf.library("Entry", ADDRESS)


def test_a_machine_without_memory_files_is_said(monkeypatch: pytest.MonkeyPatch):
    def refuse(name: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(elf.os, "memfd_create", refuse)
    with pytest.raises(ExecutorError, match=r"a library in memory, which failed: .*Permission denied"):
        elf.library("Entry", ADDRESS)

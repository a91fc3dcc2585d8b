"""Makes a shared library without a compiler and without code: its one symbol is an address of this process.

ONNX Runtime takes operators from a library that it opens by its path, in which it looks up `RegisterCustomOps`. The one
made here says that the symbol is absolute and lies where a ctypes callback does.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from ...engine.errors import ExecutorError

MACHINES = {62: "x86_64", 183: "aarch64"}
"""The machines that libraries are made for, by ELF's numbers."""
_CLASS_64, _LITTLE_ENDIAN = 2, 1
_FILE_HEADER, _SEGMENT, _SYMBOL = 64, 56, 24  # bytes
_LOAD, _DYNAMIC, _GNU_STACK = 1, 2, 0x6474E551
_READ_WRITE = 6
_HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE, _SYMBOL_SIZE = 4, 5, 6, 10, 11  # tags of the dynamic section
_GLOBAL_FUNCTION, _ABSOLUTE = 0x12, 0xFFF1
_PAGE = 0x10000  # the largest there is


def machine(header: bytes) -> int:
    """Return the machine that an ELF file is for, from its first twenty bytes.

    Raises:
        ExecutorError: It is no ELF file of 64 bits, little-endian, for a machine in MACHINES.
    """
    number = int.from_bytes(header[18:20], "little")
    if header[:6] != b"\x7fELF" + bytes((_CLASS_64, _LITTLE_ENDIAN)) or number not in MACHINES:
        raise ExecutorError(
            f"operators of our own need Linux on {' or '.join(MACHINES.values())}; this Python is for another machine "
            f"(ELF {header[4:6].hex()}, machine {number})"
        )
    return number


def image(symbol: str, address: int, machine: int) -> bytes:
    """Return a shared library whose only symbol has an absolute address."""
    names = b"\0" + symbol.encode() + b"\0"
    names += bytes(-len(names) % 8)
    at_names = _FILE_HEADER + 3 * _SEGMENT
    at_symbols = at_names + len(names)
    at_hash = at_symbols + 2 * _SYMBOL
    hashes = struct.pack("<6I", 1, 2, 1, 0, 0, 0)  # one bucket, in which symbol 1 is and no other
    at_dynamic = at_hash + len(hashes)
    entries = (
        (_HASH, at_hash),
        (_STRINGS, at_names),
        (_SYMBOLS, at_symbols),
        (_STRINGS_SIZE, len(names)),
        (_SYMBOL_SIZE, _SYMBOL),
        (0, 0),
    )
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = at_dynamic + len(dynamic)
    segments = (
        (_LOAD, _READ_WRITE, 0, 0, 0, size, size, _PAGE),
        (_DYNAMIC, _READ_WRITE, at_dynamic, at_dynamic, at_dynamic, len(dynamic), len(dynamic), 8),
        (_GNU_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16),  # without it the loader makes the process's stack executable
    )
    ident = b"\x7fELF" + bytes((_CLASS_64, _LITTLE_ENDIAN, 1))
    sizes = (_FILE_HEADER, _SEGMENT, len(segments), 0, 0, 0)
    shared = 3
    header = struct.pack("<16s2HI3QI6H", ident, shared, machine, 1, 0, _FILE_HEADER, 0, 0, *sizes)
    symbols = bytes(_SYMBOL) + struct.pack("<I2B H2Q", 1, _GLOBAL_FUNCTION, 0, _ABSOLUTE, address, 0)
    return header + b"".join(struct.pack("<2I6Q", *one) for one in segments) + names + symbols + hashes + dynamic


def library(symbol: str, address: int) -> str:
    """Make a library, and return a path by which this process can open it until it ends.

    Raises:
        ExecutorError: This machine is no 64-bit Linux with glibc, or lets no library be made in memory.
    """
    try:
        with Path("/proc/self/exe").open("rb") as file:
            content = image(symbol, address, machine(file.read(20)))
        descriptor = os.memfd_create("kontext-trt-operators")  # stays open: the loader knows libraries by their paths
        os.write(descriptor, content)
        path = f"/proc/self/fd/{descriptor}"
        loaded = ctypes.CDLL(path)
    except OSError as error:
        raise ExecutorError(f"operators of our own need a library in memory, which failed: {error}") from error
    # before 2.28 glibc adds to absolute addresses where the library lies
    if ctypes.cast(loaded[symbol], ctypes.c_void_p).value != address:
        raise ExecutorError("operators of our own need glibc 2.28 or newer: this one moves absolute addresses")
    return path

"""GGUF headers that are damaged or hostile are refused in words, in bounded time and memory."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf_files import header, tensor_info, text, write_gguf

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import gguf_file
from kontext_trt.export.checkpoint.gguf import open_gguf
from kontext_trt.export.checkpoint.gguf_file import KINDS, OTHER_KINDS, GgufFile

HUGE = 100_000
"""More than there may be in these tests, and still little."""


@pytest.fixture(autouse=True)
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "MAX_ITEMS", HUGE // 2)


def opened(folder: Path, data: bytes) -> GgufFile:
    (folder / "a.gguf").write_bytes(data)
    return GgufFile.open(folder / "a.gguf")


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def test_types_are_the_packages() -> None:
    theirs = {int(number): (number.name, *GGML_QUANT_SIZES[number]) for number in GGMLQuantizationType}
    ours = {number: (kind.name, kind.block, kind.block_bytes) for number, kind in KINDS.items()}
    assert ours.items() <= theirs.items()
    assert {number: name for number, (name, *_) in theirs.items() if number not in ours} == OTHER_KINDS


@pytest.mark.parametrize("number", OTHER_KINDS)
def test_types_that_are_not_read_are_refused_by_name(tmp_path: Path, number: int) -> None:
    with pytest.raises(
        CheckpointError,
        match=rf"tensor w is of GGUF's type {OTHER_KINDS[number]}, which is not read; types that are: F32, F16, BF16, "
        r"Q8_0, Q4_K, Q5_K, Q6_K\. Take the file in one of these",
    ):
        opened(tmp_path, header(tensors=1, rest=tensor_info("w", (256,), number)) + bytes(4096))


def test_a_type_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is of GGUF's type number 99, which is not read"):
        opened(tmp_path, header(tensors=1, rest=tensor_info("w", (256,), 99)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGUF", r"is cut short: its header is longer than its 4 bytes"),
        (b"GGML" + bytes(20), r"it does not begin with GGUF"),
        (header(version=1), r"is a GGUF file version 1; little-endian files of version 2 and 3 are read"),
        (header(version=3 << 24), r"is a GGUF file for big-endian machines"),
        (header(tensors=HUGE), r"it names 100,000 tensors"),
        (header(entries=HUGE), r"it names 100,000 entries"),
        (
            header(entries=1, rest=entry("a", 9, struct.pack("<IQ", 8, HUGE))),
            r"names 100,000 elements of lists",
        ),
        (header(entries=1, rest=entry("a", 9, struct.pack("<IQ", 0, HUGE))), r"is cut short: its header is longer"),
        (
            header(entries=1, rest=entry("a", 9, struct.pack("<IQ", 9, 1) * 9)),
            r"the list .* has elements of the unknown",
        ),
        (header(entries=1, rest=entry("a", 13, b"")), r"the entry a has the unknown type 13"),
        (header(entries=1, rest=struct.pack("<Q", HUGE)), r"a key has 100,000 bytes"),
        (header(entries=1, rest=struct.pack("<Q", 2) + b"\xff\xfe"), r"a key is not UTF-8"),
        (
            header(entries=1, rest=entry("general.alignment", 4, struct.pack("<I", 0))),
            r"its alignment is 0, not a power",
        ),
        (
            header(entries=1, rest=entry("general.alignment", 6, struct.pack("<f", 2))),
            r"its alignment is 2\.0, not a power",
        ),
        (header(tensors=1, rest=tensor_info("w", (1,) * 9, 0)), r"tensor w has 9 axes"),
        (header(tensors=2, rest=tensor_info("w", (1,), 0) * 2) + bytes(99), r"two tensors have one name"),
        (
            header(tensors=1, rest=tensor_info("w", (100, 2), 12)),
            r"tensor w Q4_K \[2, 100\] does not fill blocks of 256",
        ),
        (
            header(tensors=1, rest=tensor_info("w", (64, 64), 0)),
            r"is cut short: tensor w ends at byte 16,\d+, the file",
        ),
        (header(tensors=1, rest=tensor_info("w", (4,), 0, HUGE)), r"is cut short: tensor w ends at byte 100,"),
        (
            header(
                tensors=1,
                entries=1,
                rest=entry("comfy.gguf.orig_shape.w", 9, struct.pack("<IQ2i", 5, 2, -1, -4))
                + tensor_info("w", (4,), 0),
            )
            + bytes(99),
            r"tensor w is \[4\], and \[-1, -4\] by what is said of it",
        ),
    ],
)
def test_what_no_header_says(tmp_path: Path, data: bytes, message: str) -> None:
    started = time.process_time()
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path, data)
    assert time.process_time() - started < 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*a\.gguf: No such file"):
        GgufFile.open(tmp_path / "a.gguf")


def test_what_is_not_needed_is_passed_over(tmp_path: Path) -> None:
    entries = [
        entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + text("a") + text("b" * 70_000) + text("c")),
        entry("tokenizer.chat_template", 8, text("x" * 70_000)),
        entry("nested", 9, struct.pack("<IQ", 9, 2) + struct.pack("<IQ2B", 0, 2, 1, 2) * 2),
        entry("general.architecture", 8, text("flux")),
        entry("general.alignment", 4, struct.pack("<I", 64)),
    ]
    start = header(tensors=1, entries=5, rest=b"".join(entries) + tensor_info("w", (4,), 0, 64))
    start += bytes(-len(start) % 64)
    file = opened(tmp_path, start + bytes(64) + struct.pack("<4f", 1, 2, 3, 4))
    assert file.architecture == "flux"
    assert file.tensors["w"].offset == len(start) + 64


def flipped(data: bytearray, choice: random.Random) -> None:
    for _ in range(choice.randint(1, 4)):
        data[choice.randrange(len(data))] = choice.randrange(256)


def cut(data: bytearray, choice: random.Random) -> None:
    del data[choice.randrange(len(data)) :]


def count_changed(data: bytearray, choice: random.Random) -> None:
    place = choice.randrange(0, len(data) - 8)
    data[place : place + 8] = struct.pack("<Q", choice.choice([0, 1, 255, 1 << 12, 1 << 16]))


def grown(data: bytearray, choice: random.Random) -> None:
    place = choice.randrange(len(data))
    data[place:place] = choice.randbytes(choice.randint(1, 64))


def fuzz(folder: Path, seeds: range) -> None:
    shapes = {"b": (32, 8)}
    write_gguf(
        folder / "good.gguf",
        {"a": torch.randn(3, 64), "b": torch.randn(4, 64), "c": torch.randn(7)},
        lambda name, _: {"a": "Q8_0", "b": "F16"}.get(name, "F32"),
        shapes=shapes,
    )
    good = (folder / "good.gguf").read_bytes()
    changes: tuple[Callable[[bytearray, random.Random], None], ...] = (flipped, cut, count_changed, grown)
    messages: list[str] = []
    for seed in seeds:
        choice, data = random.Random(seed), bytearray(good)
        changes[seed % len(changes)](data, choice)
        (folder / "bad.gguf").write_bytes(data)
        started = time.process_time()
        try:
            for view in open_gguf(folder / "bad.gguf").tensors.values():
                assert view.read().shape == view.shape
        except CheckpointError as error:
            messages.append(str(error))
        assert time.process_time() - started < 2, seed
    assert len(messages) > len(seeds) // 4, "changes hit"
    assert all("bad.gguf" in message and len(message) < 2000 for message in messages)


def test_changed_files_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, range(80))


@pytest.mark.check
def test_many_changed_files_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, range(1000, 1800))

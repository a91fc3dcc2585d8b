"""NVFP4 files whose header or data are damaged are read or refused in words, never with an error of a library."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nvfp4_files import nvfp4_tensors
from safetensors.torch import save_file

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.contents import open_contents
from kontext_trt.export.checkpoint.formats import read_formats
from kontext_trt.export.checkpoint.nvfp4 import LAYOUTS
from kontext_trt.export.checkpoint.nvfp4_layout import with_layout

Header = dict[str, Any]
DTYPES = ("U8", "F4", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F32", "BF16", "I8", "I64", "BOOL")
SHAPES = ([], [0], [1], [128], [64, 0], [2, 3, 4], [1 << 40, 1 << 20], [128, 32])


def any_entry(header: Header, choice: random.Random) -> tuple[str, Header]:
    name = choice.choice(sorted(name for name in header if name != "__metadata__"))
    return name, header[name]


def of_another_type(header: Header, choice: random.Random) -> None:
    any_entry(header, choice)[1]["dtype"] = choice.choice(DTYPES)


def of_another_shape(header: Header, choice: random.Random) -> None:
    any_entry(header, choice)[1]["shape"] = choice.choice(SHAPES)


def of_another_type_and_size(header: Header, choice: random.Random) -> None:
    """One that fills its bytes, so that only NVFP4's own checks can find it."""
    _, entry = any_entry(header, choice)
    size = entry["data_offsets"][1] - entry["data_offsets"][0]
    entry["dtype"], bits = choice.choice([("U8", 8), ("F4", 4), ("F8_E4M3", 8), ("F32", 32), ("BF16", 16), ("I8", 8)])
    items = size * 8 // bits
    rows = choice.choice([1, 2, 16, 64, 128, 256])
    entry["shape"] = [rows, items // rows] if items % rows == 0 else [items]
    entry["data_offsets"][1] = entry["data_offsets"][0] + items * bits // 8


def without_one(header: Header, choice: random.Random) -> None:
    del header[any_entry(header, choice)[0]]


def renamed(header: Header, choice: random.Random) -> None:
    name, entry = any_entry(header, choice)
    del header[name]
    ends = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale", "weight", "comfy_quant", "scale_weight")
    header[f"{name.rpartition('.')[0]}.{choice.choice(ends)}"] = entry


def declared(header: Header, choice: random.Random) -> None:
    layers = choice.choice([{"a": "nvfp4"}, {"a": {"format": "nvfp4"}}, {"b": {"format": "nvfp4"}}, [], {"a": 3}, None])
    header["__metadata__"] = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def elsewhere(header: Header, choice: random.Random) -> None:
    entry = any_entry(header, choice)[1]
    entry["data_offsets"] = [offset + choice.choice([-1, 1, 64, 1 << 40]) for offset in entry["data_offsets"]]


CHANGES: tuple[Callable[[Header, random.Random], None], ...] = (
    of_another_type,
    of_another_shape,
    of_another_type_and_size,
    without_one,
    renamed,
    declared,
    elsewhere,
)


def read_all(path: Path, choice: random.Random) -> None:
    trusted = None if choice.random() < 0.3 else choice.choice([*LAYOUTS, "other"])
    views = with_layout(read_formats(open_contents(path)), str(path), None, trusted)
    for view in views.values():
        assert view.read().shape == view.shape


def fuzz(folder: Path, seeds: range) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {f"{name}.weight": torch.randn(64, 64, generator=generator) for name in "ab"}
    stored, _ = nvfp4_tensors({**weights, "c.weight": torch.ones(4, 4)}, chosen=lambda name: name[0] in "ab")
    save_file(stored, folder / "good.safetensors")
    good = (folder / "good.safetensors").read_bytes()
    length = struct.unpack("<Q", good[:8])[0]
    messages: list[str] = []
    for seed in seeds:
        choice, header = random.Random(seed), json.loads(good[8 : 8 + length])
        for _ in range(choice.randint(1, 2)):
            CHANGES[seed % len(CHANGES)](header, choice)
        data = bytearray(good[8 + length :])
        for _ in range(choice.choice([0, 0, 3])):
            data[choice.randrange(len(data))] = choice.randrange(256)
        text = json.dumps(header).encode()
        (folder / "bad.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        try:
            read_all(folder / "bad.safetensors", choice)
        except CheckpointError as error:
            messages.append(str(error))
    assert len(messages) > len(seeds) // 3, "changes hit"
    assert all(len(message) < 2000 for message in messages)


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, range(70))


@pytest.mark.check
def test_many_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, range(1000, 1700))

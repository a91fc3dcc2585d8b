"""Checkpoint files with odd headers: names, types, shapes, metadata and bytes drawn from a seed."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np

from kontext_trt.engine.bundle.tensor_file import TensorFile
from kontext_trt.engine.number_types import SAFETENSORS

TYPES = tuple(SAFETENSORS)
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SMALL = {"F64": 0.02, "F32": 0.02, "F16": 0x2400, "BF16": 0x3CA0, "F8_E4M3": 0x18, "F8_E5M2": 0x24}
"""A small number of each type, as its bits where NumPy lacks it: networks of them compute something finite."""
SIDES = (
    *("weight_scale", "scale_weight", "weight_scale_2", "input_scale", "scale_input", "comfy_quant", "pre_quant_scale"),
    *("qweight", "wscales", "weight.absmax", "weight.quant_map", "weight_zero_point", "lora_A.weight", "SCB"),
)
FORMATS = ("float8_e4m3fn", "float8_e5m2", "nvfp4", "mxfp8", "int8_tensorwise", "convrot_w4a4", "", "new")


@dataclass
class Tensor:
    """One entry of a header, and what its bytes are; None for a small number everywhere."""

    name: str
    dtype: object
    shape: list
    value: float | None = None
    data: bytes | None = None

    @property
    def size_bytes(self) -> int:
        try:
            return max(0, int(prod(self.shape) * SAFETENSORS[str(self.dtype)].bits // 8))
        except (KeyError, TypeError):
            return 4

    def bytes(self) -> bytes:
        size = self.size_bytes
        if self.data is not None:
            return self.data[:size].ljust(size, b"\0")
        if size > 1 << 22:
            return b""
        kind = SAFETENSORS.get(str(self.dtype))
        value = SMALL.get(str(self.dtype), 1) if self.value is None else self.value
        if kind is None or kind.bits < 8:
            return bytes(size)
        with np.errstate(all="ignore"):
            if self.value is not None and self.dtype == "BF16":
                value = int(np.float32(self.value).view(np.uint32)) >> 16
            elif self.value is None and self.dtype == "F16":
                return np.full(size // 2, 0.02, np.float16).tobytes()
            made = np.full(1, value).astype(kind.numpy, copy=False)
        return made.tobytes() * (size // made.nbytes)


@dataclass
class File:
    """A safetensors file to be written."""

    tensors: list[Tensor]
    metadata: dict = field(default_factory=dict)
    mangle: Callable[[bytes], bytes] = bytes

    def write(self, path: Path) -> None:
        header: dict[str, object] = {"__metadata__": self.metadata} if self.metadata else {}
        pieces, end = [], 0
        for one in self.tensors:
            data = one.bytes()
            header[one.name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": [end, end + one.size_bytes]}
            pieces.append(data)
            end += one.size_bytes
        encoded = json.dumps(header).encode()
        path.write_bytes(self.mangle(struct.pack("<Q", len(encoded)) + encoded + b"".join(pieces)))


def plain(path: Path) -> File:
    """The file at `path` as it is, but for its values."""
    opened = TensorFile.open(path)
    return File(
        tensors=[Tensor(name, one.dtype, list(one.shape)) for name, one in opened.tensors.items()],
        metadata=dict(opened.metadata),
    )


def fp8(file: File, rng: random.Random) -> File:
    """The file with some of its matrices in FP8, their scales beside them, in one of ComfyUI's three ways."""
    way = rng.choice(("old", "tensor", "header", "none"))
    share, per_row = rng.choice((0.2, 1.0)), rng.random() < 0.3
    layers, tensors = {}, []
    for one in file.tensors:
        tensors.append(one)
        if len(one.shape) != 2 or not one.name.endswith(".weight") or rng.random() > share:
            continue
        stem = one.name.removesuffix(".weight")
        tensors[-1] = replace(one, dtype=rng.choice(("F8_E4M3", "F8_E4M3", "F8_E5M2")))
        if way == "none":
            continue
        scale = "scale_weight" if way == "old" else "weight_scale"
        tensors.append(Tensor(f"{stem}.{scale}", "F32", [one.shape[0], 1] if per_row else [], 0.5))
        if rng.random() < 0.5:
            tensors.append(Tensor(f"{stem}.{'scale_input' if way == 'old' else 'input_scale'}", "F32", [], 0.02))
        layers[stem] = {"full_precision_matrix_mult": rng.random() < 0.3}
        if way == "tensor":
            text = json.dumps(layers[stem]).encode()
            tensors.append(Tensor(f"{stem}.comfy_quant", "U8", [len(text)], data=text))
    if way == "old":
        tensors.append(Tensor("scaled_fp8", "F8_E4M3", [rng.choice((0, 1, 2))]))
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})} if way == "header" else {}
    return File(tensors=tensors, metadata={**file.metadata, **metadata})


def mutate(file: File, rng: random.Random) -> None:
    """Change one thing of a file."""
    rng.choice(MUTATIONS)(file, rng)


def _retype(file: File, rng: random.Random) -> None:
    rng.choice(file.tensors).dtype = rng.choice((*TYPES, "F3", "", 7, None) if rng.random() < 0.3 else TYPES)


def _retype_many(file: File, rng: random.Random) -> None:
    dtype, part = rng.choice(FLOATS), rng.choice(("weight", "bias", "norm", "embed", "0.", ""))
    for one in file.tensors:
        if part in one.name and one.dtype in FLOATS and one.value is None:
            one.dtype = dtype


def _reshape(file: File, rng: random.Random) -> None:
    one = rng.choice(file.tensors)
    shape = list(one.shape)
    one.shape = rng.choice(
        (
            shape[::-1], [prod(shape)], [*shape, 1], [1, *shape], [], [0], [0, *shape], shape[:-1], [-1, *shape[1:]],
            [1 << 40, 1 << 40], [size + 1 for size in shape], [size // 2 for size in shape], [1.5], ["a"], [True], None,
        )
    )  # fmt: skip


def _rename(file: File, rng: random.Random) -> None:
    one = rng.choice(file.tensors)
    number = rng.choice(("7", "1023", "99999999999", "-1", "x", "", "٣", "0x1", "1e3"))
    names = (
        one.name.replace(".0.", f".{number}."), one.name + "x", "", one.name.upper(), one.name.replace(".", "..", 1),
        rng.choice(file.tensors).name, one.name.replace("weight", "scale"), "a" * 9999, "\0", "\ud800x", "..",
    )  # fmt: skip
    one.name = rng.choice(names)


def _prefix(file: File, rng: random.Random) -> None:
    prefixes = ("model.diffusion_model.", "model.", "_orig_mod.", "module.", "vae.", "model_ema.", "transformer.", "x.")
    prefix, some = rng.choice(prefixes), rng.random() < 0.3
    for one in file.tensors:
        if not some or rng.random() < 0.5:
            one.name = prefix + one.name


def _remove(file: File, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, len(file.tensors) // 2, len(file.tensors)))):
        if file.tensors:
            file.tensors.pop(rng.randrange(len(file.tensors)))


def _side(file: File, rng: random.Random) -> None:
    stem = rng.choice(file.tensors).name.removesuffix(".weight")
    shape = rng.choice(([], [1], [2], [64], [64, 1], [1, 1, 1], [0], [64, 4]))
    value = rng.choice((0.5, 1.0, 0.0, -1.0, float("nan"), float("inf"), 1e-30, 3e38))
    file.tensors.append(Tensor(f"{stem}.{rng.choice(SIDES)}", rng.choice(TYPES), shape, value))


def _declare(file: File, rng: random.Random) -> None:
    stem = rng.choice(file.tensors).name.removesuffix(".weight")
    said = rng.choice(
        (
            {"format": rng.choice(FORMATS)}, {"format": 7}, rng.choice(FORMATS), [], None, {"convrot": True},
            {"format": "float8_e4m3fn", "full_precision_matrix_mult": "yes"},
        )
    )  # fmt: skip
    if rng.random() < 0.5:
        text = json.dumps(said).encode() if rng.random() < 0.8 else rng.randbytes(20)
        file.tensors.append(Tensor(f"{stem}.comfy_quant", "U8", [len(text)], data=text))
        return
    document = rng.choice(({"layers": {stem: said}}, {"layers": [stem]}, [], {"layers": {stem: said, "gone": said}}, 7))
    texts = (json.dumps(document), "{", "", "[" * 9999, json.dumps(document).encode().hex())
    file.metadata["_quantization_metadata"] = rng.choice((texts[0], texts[0], *texts, 7, None))


def _marker(file: File, rng: random.Random) -> None:
    file.tensors.append(Tensor("scaled_fp8", rng.choice(TYPES), rng.choice(([], [0], [2], [3, 3]))))


def _add(file: File, rng: random.Random) -> None:
    names = ("model_ema.x", "vision_model.a.weight", "decoder.x", "lm_head.weight", "logit_scale", "surprise", "lora_A")
    file.tensors.append(Tensor(rng.choice(names), rng.choice(TYPES), rng.choice(([], [4], [4, 4]))))


def _damage(file: File, rng: random.Random) -> None:
    def flip(data: bytes) -> bytes:
        where = rng.randrange(min(len(data), 4096))
        return data[:where] + rng.randbytes(1) + data[where + 1 :]

    heads = (b"PK\x03\x04", b"GGUF", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x04}")
    file.mangle = rng.choice(
        (
            flip, lambda data: data[: rng.randrange(len(data))], lambda data: data + bytes(9),
            lambda data: rng.choice(heads) + data, lambda data: b"",
        )
    )  # fmt: skip


MUTATIONS = (
    *(_retype, _retype_many, _retype_many, _reshape, _rename, _prefix, _remove),
    *(_side, _side, _declare, _declare, _marker, _add, _damage),
)


def fuzzed(base: Path, seed: int) -> File:
    """A file like `base` with up to three things changed."""
    rng = random.Random(seed)
    file = plain(base)
    if rng.random() < 0.6:
        file = fp8(file, rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        if file.tensors:
            mutate(file, rng)
    return file

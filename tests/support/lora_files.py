"""LoRA files of every family, written by hand, and what each means: computed in float64 without this project's code.

The model is as wide as the tiny one: 64 features, an MLP of 256, 2 double and 2 single blocks.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array | tuple[str, Array]]
"""Values by name; with the name of a type in safetensors where NumPy does not have it."""
Wanted = Callable[[Array, float], Array]
"""Gives a tensor in float64 as it should become, from what it was and the user's scale."""
D, MLP = 64, 256
DOUBLE = "transformer_blocks"
SINGLE = "single_transformer_blocks"
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64"}


def random(name: str, *shape: int, size: float = 0.3) -> Array:
    """Values that depend on the name alone."""
    return (np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape) * size).astype(np.float32)


def bf16(values: Array) -> tuple[str, Array]:
    return "BF16", (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def of_bf16(values: tuple[str, Array]) -> Array:
    return (values[1].astype("<u4") << 16).view("<f4")


def write_file(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file, written after the format's description alone."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, given in tensors.items():
        dtype, values = given if isinstance(given, tuple) else (_DTYPES[given.dtype.name], given)
        raw = np.ascontiguousarray(values).tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


def model_shapes() -> dict[tuple[str, str], tuple[int, ...]]:
    """The shapes of the tensors by part and name; biases are as long as their weights are high."""
    linears: dict[tuple[str, str], tuple[int, int]] = {
        ("transformer", "x_embedder"): (D, 64),
        ("transformer", "context_embedder"): (D, 64),
        ("transformer", "norm_out.scale"): (D, D),
        ("transformer", "norm_out.shift"): (D, D),
        ("transformer", "proj_out"): (64, D),
        **{
            ("transformer", f"time_text_embed.{one}.linear_{number}"): (D, inner if number == 1 else D)
            for one, inner in (("timestep_embedder", 256), ("guidance_embedder", 256), ("text_embedder", 64))
            for number in (1, 2)
        },
    }
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}
    for i in (0, 1):
        double = {"norm1.linear": (6 * D, D), "norm1_context.linear": (6 * D, D)}
        heads = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
        double |= {f"attn.{one}": (D, D) for one in heads}
        for one in ("ff", "ff_context"):
            double |= {f"{one}.net.0.proj": (MLP, D), f"{one}.net.2": (D, MLP)}
        linears |= {("transformer", f"{DOUBLE}.{i}.{name}"): shape for name, shape in double.items()}
        single = {"norm.linear": (3 * D, D), "proj_mlp": (MLP, D), "proj_out": (D, D + MLP)}
        single |= {f"attn.{one}": (D, D) for one in ("to_q", "to_k", "to_v")}
        linears |= {("transformer", f"{SINGLE}.{i}.{name}"): shape for name, shape in single.items()}
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            shapes[("transformer", f"{DOUBLE}.{i}.attn.{norm}.weight")] = (32,)
        for norm in ("norm_q", "norm_k"):
            shapes[("transformer", f"{SINGLE}.{i}.attn.{norm}.weight")] = (32,)
        linears |= {("clip", f"encoder.layers.{i}.self_attn.{one}_proj"): (D, D) for one in ("q", "k", "v", "out")}
        linears |= {
            ("clip", f"encoder.layers.{i}.mlp.fc1"): (128, D),
            ("clip", f"encoder.layers.{i}.mlp.fc2"): (D, 128),
        }
        linears |= {("t5", f"encoder.block.{i}.layer.0.SelfAttention.{one}"): (D, D) for one in ("q", "k", "v", "o")}
        linears |= {("t5", f"encoder.block.{i}.layer.1.DenseReluDense.{one}"): (128, D) for one in ("wi_0", "wi_1")}
        linears[("t5", f"encoder.block.{i}.layer.1.DenseReluDense.wo")] = (D, 128)
    for (part, name), shape in linears.items():
        shapes[(part, f"{name}.weight")] = shape
        if part != "t5":
            shapes[(part, f"{name}.bias")] = shape[:1]
    return shapes


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file, its family, and what it makes of each tensor that it changes."""

    name: str
    family: str
    tensors: Tensors
    wanted: Mapping[tuple[str, str], Wanted]
    metadata: Mapping[str, str] | None = None
    tests: tuple[str, ...] = field(default=())


def transformer(wanted: Mapping[str, Wanted]) -> dict[tuple[str, str], Wanted]:
    return {("transformer", name): one for name, one in wanted.items()}


def wide(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64)


def low_rank(down: Array, up: Array, scale: float = 1.0) -> Wanted:
    return lambda weight, user: weight + user * scale * (wide(up) @ wide(down))


def plus(values: Array, scale: float = 1.0) -> Wanted:
    return lambda weight, user: weight + user * scale * wide(values)


def pair(layer: str, out: int, rank: int, inner: int = D, *, a: str = "lora_A", b: str = "lora_B") -> dict[str, Array]:
    """The two matrices of a layer, under its family's names."""
    return {
        f"{layer}.{a}.weight": random(f"{layer} down", rank, inner),
        f"{layer}.{b}.weight": random(f"{layer} up", out, rank),
    }


def halves(tensors: Tensors) -> tuple[Array, Array]:
    """The down and the up of the one pair among tensors."""
    down, up = (
        next(values for name, values in tensors.items() if any(one in name for one in ones))
        for ones in (("lora_A.w", "lora_down", "lora.down", ".down."), ("lora_B.w", "lora_up", "lora.up", ".up."))
    )
    assert not isinstance(down, tuple)
    assert not isinstance(up, tuple)
    return down, up


def number(value: float) -> Array:
    return np.array(value, dtype=np.float32)


def peft_metadata(**entries: Any) -> dict[str, str]:
    return {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({f"transformer.{key}": one for key, one in entries.items()}),
    }

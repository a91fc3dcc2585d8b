"""Where a graph's weights lie: in the checkpoint's own bytes where they serve as they are, else in a file converted
tensor by tensor."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..engine.components import Precision
from ..engine.errors import ExportError
from ..engine.files import atomic_file
from .checkpoint.views import TORCH_DTYPES, View

STORED_TYPES = {Precision.FP32: "F32", Precision.FP16: "F16", Precision.BF16: "BF16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A weight's place: a safetensors file, and its bytes in it."""

    file: Path
    offset: int
    size_bytes: int
    shape: tuple[int, ...]


def stored_precision(views: Iterable[View]) -> Precision:
    """The type that most of the bytes have. FP8 weights are computed in bfloat16."""
    sizes: dict[str, int] = {}
    for view in views:
        sizes[view.dtype] = sizes.get(view.dtype, 0) + view.size_bytes
    dtype = max(sizes, key=lambda dtype: sizes[dtype])
    return {"F32": Precision.FP32, "F64": Precision.FP32, "F16": Precision.FP16}.get(dtype, Precision.BF16)


def usable_as_stored(view: View, precision: Precision) -> bool:
    return view.dtype == STORED_TYPES[precision] and view.scale is None


def write_converted(
    views: Mapping[str, View], precision: Precision, path: Path, on_bytes: Callable[[int], None] | None = None
) -> dict[str, Placed]:
    """Write the tensors, converted, as one safetensors file; never more than a few chunks of one tensor in memory.

    `on_bytes` is told the size of every chunk written.
    """
    dtype = STORED_TYPES[precision]
    target, item_bytes = TORCH_DTYPES[dtype], precision.item_bytes
    header: dict[str, object] = {}
    end = 0
    for name, view in views.items():
        begin, end = end, end + item_bytes * view.num_items
        header[name] = {"dtype": dtype, "shape": list(view.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    placed: dict[str, Placed] = {}
    with atomic_file(path) as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, view in views.items():
            offset = file.tell()
            for chunk in view.chunks():
                converted = chunk.to(target)
                if target is torch.float16 and not torch.isfinite(converted).all() and torch.isfinite(chunk).all():
                    raise ExportError(
                        f"tensor {name} has values beyond float16's 65504; export it with --precision bf16"
                    )
                data = converted.view(torch.uint8).numpy().tobytes()
                file.write(data)
                if on_bytes is not None:
                    on_bytes(len(data))
            placed[name] = Placed(file=path, offset=offset, size_bytes=file.tell() - offset, shape=view.shape)
    return placed

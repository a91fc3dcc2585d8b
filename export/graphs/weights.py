"""Places a graph's weights: in the checkpoint's own bytes where they serve, else in a file that is converted.

Files are converted tensor by tensor.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeGuard

import onnx_ir as ir
import torch
from torch import Tensor

from ...engine.bundle.graph_file import WeightPlace
from ...engine.components import Precision
from ...engine.errors import ExportError
from ...engine.number_types import ONNX, SAFETENSORS
from ...engine.system.files import atomic_file
from ..checkpoint.views import TensorView, View
from ..torch_types import torch_dtype
from .trace import tensor_name


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTensor:
    """Describes a tensor to be written: its safetensors type and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * SAFETENSORS[self.dtype].bits // 8


def stored_precision(views: Iterable[TensorView]) -> Precision:
    """Return the type that most of the bytes have; FP8 weights are computed in bfloat16."""
    sizes: dict[str, int] = {}
    for view in views:
        sizes[view.dtype] = sizes.get(view.dtype, 0) + view.size_bytes
    dtype = max(sizes, key=lambda dtype: sizes[dtype])
    return {"F32": Precision.FP32, "F64": Precision.FP32, "F16": Precision.FP16}.get(dtype, Precision.BF16)


def usable_as_stored(view: TensorView, precision: Precision) -> TypeGuard[View]:
    """Return whether a graph of this precision can read the weight as it lies."""
    return isinstance(view, View) and view.dtype == precision.number.safetensors and view.scale is None


def write_converted(
    views: Mapping[str, TensorView], precision: Precision, path: Path, on_bytes: Callable[[int], None] | None = None
) -> dict[str, WeightPlace]:
    """Write the tensors, converted, as one safetensors file; never more than a few chunks of one tensor in memory.

    Args:
        views: The tensors by name.
        precision: What they become.
        path: The file, which must not exist.
        on_bytes: Is told the size of every chunk written.

    Returns:
        Where each tensor lies.

    Raises:
        ExportError: A value is beyond float16's range.
    """
    dtype = precision.number.safetensors
    specs = {name: FileTensor(dtype=dtype, shape=view.shape) for name, view in views.items()}

    def converted() -> Iterator[tuple[str, Tensor]]:
        target = torch_dtype(SAFETENSORS[dtype])
        for name, view in views.items():
            for chunk in view.chunks():
                values = chunk.to(target)
                if target is torch.float16 and not torch.isfinite(values).all() and torch.isfinite(chunk).all():
                    raise ExportError(
                        f"tensor {name} has values beyond float16's 65504; export it with --precision bf16"
                    )
                yield name, values

    return write_tensors(path, specs, converted(), on_bytes)


def write_tensors(
    path: Path,
    specs: Mapping[str, FileTensor],
    pieces: Iterable[tuple[str, Tensor]],
    on_bytes: Callable[[int], None] | None = None,
) -> dict[str, WeightPlace]:
    """Write one safetensors file, whole or not at all, from `pieces` of its tensors as they come.

    Args:
        path: The file, which must not exist.
        specs: Types and shapes of the tensors by name.
        pieces: Names and values; the pieces of one tensor come in its order, and tensors may take turns.
        on_bytes: Is told the size of every piece.

    Returns:
        Where each tensor lies.
    """
    assert not path.exists(), f"{path} is taken"
    header: dict[str, object] = {}
    begins: dict[str, int] = {}
    end = 0
    for name, spec in specs.items():
        begins[name], end = end, end + spec.size_bytes
        header[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [begins[name], end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    start = 8 + len(encoded)
    written = dict.fromkeys(specs, 0)
    with atomic_file(path) as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, values in pieces:
            data = values.contiguous().view(-1).view(torch.uint8).cpu().numpy()
            file.seek(start + begins[name] + written[name])
            file.write(data.data)
            written[name] += data.nbytes
            if on_bytes is not None:
                on_bytes(data.nbytes)
        assert written == {name: spec.size_bytes for name, spec in specs.items()}, "every tensor is whole"
    return {
        name: WeightPlace(file=path, offset=start + begins[name], size_bytes=spec.size_bytes)
        for name, spec in specs.items()
    }


def attach_weights(model: ir.Model, places: Mapping[str, WeightPlace], folder: Path) -> dict[str, WeightPlace]:
    """Make each initializer without a value external data at its place.

    Locations are relative to the graph's `folder`.

    Returns:
        The places that were used, by the tensor's name.

    Raises:
        ExportError: A place has another number of bytes than the initializer's shape and type.
    """
    used: dict[str, WeightPlace] = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            continue
        place = places[tensor_name(name)]
        assert value.shape is not None
        assert value.dtype is not None
        shape = value.shape.numpy()
        wanted = prod(shape) * ONNX[value.dtype.name].bits // 8
        if place.size_bytes != wanted:
            raise ExportError(
                f"{tensor_name(name)} has {place.size_bytes:,} bytes in {place.file.name}, and a graph would read "
                f"{wanted:,} ({list(shape)} {value.dtype.name}); export with --precision to convert it"
            )
        value.const_value = ir.ExternalTensor(
            location=place.file.relative_to(folder).as_posix(),
            offset=place.offset,
            length=place.size_bytes,
            dtype=value.dtype,
            shape=ir.Shape(shape),
            name=name,
            base_dir=folder,
        )
        used[tensor_name(name)] = place
    return used

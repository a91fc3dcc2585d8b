"""Describes the tensors of a checkpoint as views: where their values come from, never the values themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...engine.bundle.tensor_file import TensorFile
from ...engine.errors import CheckpointError
from ...engine.number_types import SAFETENSORS
from ..torch_types import torch_dtype

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""The types of a safetensors header that are read as numbers."""
CHUNK_ITEMS = 8 << 20


class TensorView(Protocol):
    """Describes a tensor of a checkpoint, which is read in pieces: `View` where it lies in a file as it is.

    What is computed from other bytes is a `DecodedView`, or another class with these members.
    """

    @property
    def path(self) -> Path:
        """The file that it comes from, for messages."""
        ...

    @property
    def dtype(self) -> str:
        """The type's name in safetensors; of decoded values, the type that they are computed with."""
        ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def num_items(self) -> int: ...

    @property
    def size_bytes(self) -> int:
        """The number of bytes that its values take in their type."""
        ...

    def rows(self, start: int, stop: int) -> TensorView:
        """Return rows `start` to `stop` of the first axis."""
        ...

    def reshaped(self, shape: tuple[int, ...]) -> TensorView:
        """Return the same values under another shape of equal size."""
        ...

    def chunks(self) -> Iterator[Tensor]:
        """Yield the values as flat float32 tensors of a few dozen MiB at most, in order."""
        ...

    def read(self) -> Tensor:
        """Return the whole tensor in float32."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Describes a tensor as contiguous bytes of a safetensors file.

    Attributes:
        path: The file.
        dtype: The type's name in safetensors, such as "BF16".
        shape: The tensor's shape.
        offset: Where in the file its first byte lies.
        scale: What an FP8 weight is multiplied by: a scalar's view or its value, or a view of one number per row.
        input_scale: What the layer's input is divided by before it is rounded to FP8; None leaves it as it is.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    scale: View | float | None = None
    input_scale: float | None = None

    @property
    def num_items(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.num_items * SAFETENSORS[self.dtype].bits // 8

    @property
    def row_scales(self) -> View | None:
        """The scales, if there is one per row; None for a weight with one scale, or none."""
        return self.scale if isinstance(self.scale, View) and self.scale.shape else None

    @property
    def scale_value(self) -> float:
        """The one number that the values are multiplied by, 1 without a scale."""
        assert self.row_scales is None, "there is one number per row"
        if self.scale is None:
            return 1.0
        return float(self.scale.read()) if isinstance(self.scale, View) else self.scale

    def rows(self, start: int, stop: int) -> View:
        """Return rows `start` to `stop` of the first axis: they are contiguous, so still a view."""
        row_bytes = self.size_bytes // self.shape[0]
        scale = self.row_scales.rows(start, stop) if self.row_scales else self.scale
        shape, offset = (stop - start, *self.shape[1:]), self.offset + start * row_bytes
        return replace(self, shape=shape, offset=offset, scale=scale)

    def reshaped(self, shape: tuple[int, ...]) -> View:
        """Return the same bytes under another shape of equal size."""
        assert prod(shape) == prod(self.shape), (shape, self.shape)
        return replace(self, shape=shape)

    def chunks(self) -> Iterator[Tensor]:
        """Yield the values as flat float32 tensors of at most 32 MiB, in order; FP8 scales are multiplied in.

        Raises CheckpointError for a type that holds no floating-point numbers.
        """
        if self.dtype not in FLOATS:
            raise CheckpointError(f"{self.path} holds weights of type {self.dtype}, which are not read as numbers")
        if self.row_scales is not None:
            yield from self._scaled_rows(self.row_scales)
            return
        scale = self.scale_value
        for values in self._stored():
            yield values if self.scale is None else values * scale

    def _scaled_rows(self, scales: View) -> Iterator[Tensor]:
        numbers, begin = scales.read(), 0
        width = self.num_items // len(numbers)
        for values in self._stored():
            rows = torch.arange(begin, begin + len(values)) // width
            begin += len(values)
            yield values * numbers[rows]

    def _stored(self) -> Iterator[Tensor]:
        if not self.size_bytes:
            return
        item_bytes = SAFETENSORS[self.dtype].bits // 8
        data = np.memmap(self.path, dtype=np.uint8, mode="c", offset=self.offset, shape=(self.size_bytes,))
        for start in range(0, self.size_bytes, CHUNK_ITEMS * item_bytes):
            raw = torch.from_numpy(np.array(data[start : start + CHUNK_ITEMS * item_bytes]))
            yield raw.view(torch_dtype(SAFETENSORS[self.dtype])).to(torch.float32)

    def read(self) -> Tensor:
        """Return the whole tensor in float32."""
        return torch.cat([torch.empty(0), *self.chunks()]).reshape(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Holds the tensors of one network under this project's names.

    Attributes:
        source: What the user gave, for messages.
        files: The safetensors files that the tensors lie in.
        views: The tensors by name.
    """

    source: str
    files: tuple[TensorFile, ...]
    views: Mapping[str, TensorView]

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raise CheckpointError unless these are exactly the expected tensors, of the expected shapes."""
        missing = [name for name in expected if name not in self.views]
        if missing:
            raise CheckpointError(f"{self.source} lacks {_listed(missing, len(expected))}")
        extra = [name for name in self.views if name not in expected]
        if extra:
            raise CheckpointError(
                f"{self.source} has tensors that do not belong there: {_listed(extra, len(self.views))}"
            )
        for name, shape in expected.items():
            if self.views[name].shape != shape:
                raise CheckpointError(
                    f"{self.source}: tensor {name} is {list(self.views[name].shape)}, this network has {list(shape)}"
                )


def _listed(names: list[str], of: int, shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{more} ({len(names)} of {of} tensors)"

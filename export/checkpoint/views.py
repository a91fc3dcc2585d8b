"""Describes the tensors of a checkpoint as views: where their bytes lie, never the bytes themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Describes a tensor as contiguous bytes of a safetensors file.

    Attributes:
        path: The file.
        dtype: The type's name in safetensors, such as "BF16".
        shape: The tensor's shape.
        offset: Where in the file its first byte lies.
        scale: What an FP8 weight is multiplied by (ComfyUI's `scale_weight`): a scalar's view, or its value.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    scale: View | float | None = None

    @property
    def num_items(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.num_items * SAFETENSORS[self.dtype].bits // 8

    @property
    def scale_value(self) -> float:
        """The number that the values are multiplied by, 1 without a scale."""
        if self.scale is None:
            return 1.0
        return float(self.scale.read()) if isinstance(self.scale, View) else self.scale

    def rows(self, start: int, stop: int) -> View:
        """Return rows `start` to `stop` of the first axis: they are contiguous, so still a view."""
        row_bytes = self.size_bytes // self.shape[0]
        return replace(self, shape=(stop - start, *self.shape[1:]), offset=self.offset + start * row_bytes)

    def reshaped(self, shape: tuple[int, ...]) -> View:
        """Return the same bytes under another shape of equal size."""
        assert prod(shape) == prod(self.shape), (shape, self.shape)
        return replace(self, shape=shape)

    def chunks(self) -> Iterator[Tensor]:
        """Yield the values as flat float32 tensors of at most 32 MiB, in order; an FP8 scale is multiplied in.

        Raises CheckpointError for a type that holds no floating-point numbers.
        """
        if self.dtype not in FLOATS:
            raise CheckpointError(f"{self.path} holds weights of type {self.dtype}, which are not read as numbers")
        scale = self.scale_value
        item_bytes = SAFETENSORS[self.dtype].bits // 8
        data = np.memmap(self.path, dtype=np.uint8, mode="c", offset=self.offset, shape=(self.size_bytes,))
        for start in range(0, self.size_bytes, CHUNK_ITEMS * item_bytes):
            raw = torch.from_numpy(np.array(data[start : start + CHUNK_ITEMS * item_bytes]))
            values = raw.view(torch_dtype(SAFETENSORS[self.dtype])).to(torch.float32)
            yield values if self.scale is None else values * scale

    def read(self) -> Tensor:
        """Return the whole tensor in float32."""
        return torch.cat(list(self.chunks())).reshape(self.shape)


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
    views: Mapping[str, View]

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

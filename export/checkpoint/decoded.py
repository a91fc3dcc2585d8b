"""Describes tensors whose values are computed from other bytes: blocks of codes with scales of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ...engine.number_types import SAFETENSORS
from . import views


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedView:
    """Describes a tensor that is decoded some rows at a time.

    Attributes:
        path: The file that its codes lie in, for messages.
        dtype: The type that the values are computed with, as safetensors names it: "BF16" for most quantized weights.
        shape: The tensor's shape.
        decode: Returns rows `start` to `stop` of what is decoded, in float32, of any shape; it opens the file itself.
        num_rows: How many rows `decode` knows; the tensor begins at `first_row` of them.
        first_row: Where among them the tensor begins.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    decode: Callable[[int, int], Tensor]
    num_rows: int
    first_row: int = 0

    @property
    def num_items(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The number of bytes that the decoded values take in their type."""
        return self.num_items * SAFETENSORS[self.dtype].bits // 8

    def rows(self, start: int, stop: int) -> DecodedView:
        """Return rows `start` to `stop`; the rows of its shape must still be those that are decoded."""
        return replace(
            self, shape=(stop - start, *self.shape[1:]), first_row=self.first_row + start, num_rows=stop - start
        )

    def reshaped(self, shape: tuple[int, ...]) -> DecodedView:
        """Return the same values under another shape of equal size."""
        assert prod(shape) == prod(self.shape), (shape, self.shape)
        return replace(self, shape=shape)

    def chunks(self) -> Iterator[Tensor]:
        """Yield the values as flat float32 tensors, in order: whole rows, at most 32 MiB unless one is larger."""
        width = self.num_items // self.num_rows if self.num_rows else 0
        step = max(1, views.CHUNK_ITEMS // width) if width else max(1, self.num_rows)
        for start in range(0, self.num_rows, step):
            stop = min(start + step, self.num_rows)
            yield self.decode(self.first_row + start, self.first_row + stop).reshape(-1)

    def read(self) -> Tensor:
        """Return the whole tensor in float32."""
        return torch.cat([torch.empty(0), *self.chunks()]).reshape(self.shape)

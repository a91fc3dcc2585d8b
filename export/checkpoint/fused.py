"""Fuses LoRA files into the tensors of a checkpoint: each tensor that they change is computed when it is read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...engine.errors import LoraError
from ...engine.lora.apply import apply_changes
from ...engine.lora.changes import Change, LoraFile, Place
from ...engine.lora.choice import LoraChoice
from ...engine.lora.fit import check_fit
from ...engine.lora.read import read_lora
from ...engine.lora.record import lora_records
from ...engine.number_types import SAFETENSORS
from . import views
from .open import Checkpoint
from .views import TensorView

logger = logging.getLogger(__name__)

PARTS = ("transformer", "clip", "t5")
"""The parts of a checkpoint that LoRA files change."""
_KEPT = ("F64", "F32", "F16", "BF16")
"""The types that a fused tensor keeps; of quantized ones it becomes BF16."""
ScaledChanges = tuple[Sequence[Change], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedView:
    """Describes a tensor with the changes of LoRA files; it is computed whole, in float32, each time it is read.

    Attributes:
        name: What the tensor is called here, for messages.
        base: The tensor without them.
        changes: What each file changes of it, with the scale of the file.
        first: The first row that this is of what is computed.
        shape: The shape of the rows that this is.
    """

    name: str
    base: TensorView
    changes: tuple[ScaledChanges, ...]
    shape: tuple[int, ...]
    first: int = 0

    @property
    def path(self) -> Path:
        return self.base.path

    @property
    def dtype(self) -> str:
        """The base's type; BF16 for one that is quantized."""
        return self.base.dtype if self.base.dtype in _KEPT and not is_quantized(self.base) else "BF16"

    @property
    def num_items(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.num_items * SAFETENSORS[self.dtype].bits // 8

    def rows(self, start: int, stop: int) -> FusedView:
        """Return rows `start` to `stop`."""
        return replace(self, shape=(stop - start, *self.shape[1:]), first=self.first + start)

    def reshaped(self, shape: tuple[int, ...]) -> FusedView:
        """Return the same values under another shape of equal size, which has the same rows."""
        assert prod(shape) == prod(self.shape), (shape, self.shape)
        assert shape[:1] == self.shape[:1], "rows stay rows"
        return replace(self, shape=shape)

    def chunks(self) -> Iterator[Tensor]:
        """Yield the values as flat float32 tensors of at most 32 MiB, which are pieces of the whole."""
        values = self.read().reshape(-1)
        for start in range(0, len(values), views.CHUNK_ITEMS):
            yield values[start : start + views.CHUNK_ITEMS]

    def read(self) -> Tensor:
        """Return the whole tensor in float32. Raises LoraError for one that float32 does not hold."""
        values = np.empty(self.base.num_items, dtype=np.float32)
        begin = 0
        for chunk in self.base.chunks():
            values[begin : begin + chunk.numel()] = chunk.numpy()
            begin += chunk.numel()
        made = apply_changes(values.reshape(self.base.shape), self.changes)
        rows = made[self.first : self.first + self.shape[0]] if self.shape else made
        if not np.isfinite(rows).all():
            raise LoraError(
                f"{self.name} of {self.path} has values beyond float32 after LoRA files were fused into it; take a "
                "smaller scale, or a LoRA that is not damaged"
            )
        return torch.from_numpy(rows).reshape(self.shape)


def is_quantized(view: TensorView) -> bool:
    """Return whether a tensor is stored in fewer bits than it is computed with, so that fusing makes it larger."""
    return not isinstance(view, views.View) or view.dtype not in _KEPT or view.scale is not None


def read_loras(choices: Sequence[LoraChoice], *, allow_unused: bool) -> list[tuple[LoraFile, float]]:
    """Read the LoRA files that are asked for, each with its scale.

    Raises:
        LoraError: One cannot be used.
    """
    return [(read_lora(Path(one.path), allow_unused=allow_unused), one.scale) for one in choices]


def fused_views(
    files: Sequence[tuple[LoraFile, float]], parts: Mapping[str, Mapping[str, TensorView]]
) -> dict[str, dict[str, FusedView]]:
    """Return the tensors that LoRA files change, with their changes, by part and name.

    Args:
        files: The files with their scales, in the order in which they are applied.
        parts: The tensors of the parts by name.

    Raises:
        LoraError: A file does not fit.
    """
    shapes = {Place(part=part, tensor=name): view.shape for part in parts for name, view in parts[part].items()}
    gathered: dict[Place, list[ScaledChanges]] = {}
    for file, scale in files:
        check_fit(file, shapes)
        changes: dict[Place, list[Change]] = {}
        for change in file.changes:
            changes.setdefault(change.place, []).append(change)
        for place, of_place in changes.items():
            gathered.setdefault(place, []).append((of_place, scale))
    fused: dict[str, dict[str, FusedView]] = {}
    for place, scaled in gathered.items():
        view = parts[place.part][place.tensor]
        fused.setdefault(place.part, {})[place.tensor] = FusedView(
            name=place.tensor, base=view, changes=tuple(scaled), shape=view.shape
        )
    return fused


def fuse_checkpoint(checkpoint: Checkpoint, choices: Sequence[LoraChoice], *, allow_unused: bool) -> Checkpoint:
    """Return a checkpoint whose tensors have the changes of LoRA files; nothing is computed before it is read.

    Raises:
        LoraError: A file cannot be used, or does not fit the checkpoint.
    """
    if checkpoint.loras:
        raise LoraError(f"{checkpoint.path} has LoRA files fused into it already; open it again, and fuse all at once")
    files = read_loras(choices, allow_unused=allow_unused)
    fused = fused_views(files, {part: checkpoint.weights(part).views for part in PARTS})
    parts = {}
    for part, changed in fused.items():
        opened = getattr(checkpoint, part)
        larger = sum(is_quantized(view.base) for view in changed.values())
        if larger:
            logger.warning(
                "%s: %d quantized tensors become bf16 as LoRA files are fused into them; quantize the bundle again",
                opened.weights.source,
                larger,
            )
        weights = replace(opened.weights, views={**opened.weights.views, **changed})
        parts[part] = replace(opened, weights=weights)
    return replace(checkpoint, **parts, loras=lora_records(files))

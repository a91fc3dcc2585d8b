"""Describes what a file of tensors holds, whatever its container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...engine.bundle.tensor_file import TensorFile
from .views import TensorView


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Holds the tensors of one file, or of shards, under the names that they have there.

    Attributes:
        source: What the user gave, for messages.
        tensors: The tensors by name.
        metadata: What the header says beside them.
        files: The safetensors files among those that were opened.
    """

    source: str
    tensors: Mapping[str, TensorView]
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: tuple[TensorFile, ...] = ()

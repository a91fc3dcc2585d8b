"""Says what manifests and pictures keep of LoRA files: their names, families, hashes and scales."""

from __future__ import annotations

from collections.abc import Iterable

from ..bundle.manifest import LoraRecord
from ..documents import TEXT_LENGTH
from ..printable import printable_line
from .changes import LoraFile


def lora_records(files: Iterable[tuple[LoraFile, float]]) -> tuple[LoraRecord, ...]:
    """Return what is written down of LoRA files, each with its scale; names are escaped and cut to what fits."""
    return tuple(
        LoraRecord(
            name=printable_line(file.name)[:TEXT_LENGTH],
            family=file.family,
            sha256=file.sha256,
            scale=scale,
            adapter_config=file.adapter_config,
        )
        for file, scale in files
    )

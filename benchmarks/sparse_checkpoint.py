"""A checkpoint of FLUX.1 Kontext's real shapes that takes no disk: safetensors headers over sparse files.

    python -m kontext_trt.benchmarks.sparse_checkpoint FOLDER

The weights read as zeros. It is for what depends on shapes and sizes alone: exporting, memory, disk.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path

from ..engine.components import COMPONENTS
from ..engine.tensor_file import ITEM_BITS
from ..export.configs import ModelConfig, TransformerConfig
from ..export.environment import require_export
from .program import run_main

FOLDERS = {"transformer": "transformer", "vae": "vae", "clip": "text_encoder", "t5": "text_encoder_2"}


def write_sparse_file(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16") -> int:
    """A safetensors file of these shapes without data blocks. Returns its apparent size in bytes."""
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin = end
        end += ITEM_BITS[dtype] // 8 * prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(8 + len(encoded) + end)
    return path.stat().st_size


def _stored(part: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes as diffusers stores them: the halves of the transformer's last norm are one tensor."""
    stored = dict(shapes)
    if part == "transformer":
        for suffix in ("weight", "bias"):
            scale, shift = (stored.pop(f"norm_out.{half}.{suffix}") for half in ("scale", "shift"))
            stored[f"norm_out.linear.{suffix}"] = (scale[0] + shift[0], *scale[1:])
    return stored


def write_sparse_transformer(path: Path, transformer: TransformerConfig) -> int:
    """A transformer's file alone. Returns its apparent size in bytes."""
    return _write_part(path, "transformer", ModelConfig(transformer=transformer))


def _write_part(path: Path, part: str, config: ModelConfig, dtype: str = "BF16") -> int:
    from ..export.trace import expected_tensors

    shapes: dict[str, tuple[int, ...]] = {}
    for component in COMPONENTS.values():
        if component.part == part:
            shapes |= expected_tensors(component.name, config)
    return write_sparse_file(path, _stored(part, shapes), dtype)


def write_sparse_checkpoint(folder: Path, config: ModelConfig | None = None, *, dtype: str = "BF16") -> int:
    """A diffusers folder without weights' blocks and without configurations. Returns its apparent size in bytes."""
    from ..export.tiny import clip_tokenizer, t5_tokenizer

    config = config or ModelConfig()
    total = 0
    for part, name in FOLDERS.items():
        total += _write_part(folder / name / "model.safetensors", part, config, dtype)
    clip_tokenizer().save_pretrained(str(folder / "tokenizer"))
    t5_tokenizer().save_pretrained(str(folder / "tokenizer_2"))
    (folder / "model_index.json").write_text('{"_class_name": "FluxKontextPipeline"}')
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="A checkpoint of FLUX.1 Kontext's real shapes that takes no disk.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    require_export()
    written = write_sparse_checkpoint(folder)
    print(f"{folder}: {written / 1e9:.1f} GB apparent size")


if __name__ == "__main__":
    run_main(main)

"""A bundle without its weights' bytes, to carry to a machine and fill with random ones there.

    python -m kontext_trt.benchmarks.bare_bundle strip BUNDLE BARE
    python -m kontext_trt.benchmarks.bare_bundle fill BARE

BARE is a few megabytes whatever the model's size. Filled, it opens and runs as the original does, on random weights.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.bundle import MANIFEST, Bundle
from ..engine.errors import BundleError
from ..engine.files import is_taken
from ..engine.manifest import WeightsRecord, parse_manifest
from ..engine.tensor_file import TensorEntry, TensorFile
from .program import run_main

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
GAIN = 0.7
"""Of a matrix: what it makes of inputs of size 1."""
CODE_SPREAD = {"F8_E4M3": 100.0, "F4": 2.0}
"""The standard deviation of quantized codes, which reach 448 and 6."""
BLOCK_SCALE = 256.0
"""Of NVFP4, which reaches 448."""


def strip(bundle: Bundle, target: Path) -> None:
    """Copy everything but the weights' data. Each weights file becomes its header alone, named `.header`.

    Raises BundleError if there is something at `target`.
    """
    if is_taken(target):
        raise BundleError(f"{target} exists; choose another name for the bare bundle")
    for record in bundle.manifest.files:
        (target / record.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle.path / record.path, target / record.path)
    shutil.copy(bundle.path / MANIFEST, target)
    for weights in bundle.manifest.weights:
        source = bundle.path / weights.path
        start = min(entry.offset for entry in TensorFile.open(source).tensors.values())
        (target / weights.path).parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as file:
            (target / f"{weights.path}.header").write_bytes(file.read(start))


def fill(target: Path) -> None:
    """Write random weights behind every header, and note in the manifest that they are others.

    Raises BundleError if `target` is not a bundle that was stripped.
    """
    if not (target / MANIFEST).is_file():
        raise BundleError(f"{target} is not a bare bundle: it has no {MANIFEST}; make one with: bare_bundle strip")
    manifest = parse_manifest((target / MANIFEST).read_bytes(), str(target))
    missing = [weights.path for weights in manifest.weights if not (target / f"{weights.path}.header").is_file()]
    if missing:
        raise BundleError(
            f"{target} is not a bare bundle: it has no {missing[0]}.header; make one with: bare_bundle strip"
        )
    import torch

    torch.manual_seed(0)
    records: list[WeightsRecord] = []
    for weights in manifest.weights:
        path = target / weights.path
        header = Path(f"{path}.header").read_bytes()
        with path.open("wb") as file:
            file.write(header)
            file.truncate(weights.size_bytes)
        entries = TensorFile.open(path).tensors
        with path.open("r+b") as file:
            for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
                values = random_tensor(name, entries)
                if values is not None:
                    file.seek(entry.offset)
                    file.write(values.contiguous().view(-1).view(torch.uint8).cpu().numpy().tobytes())
        sample = TensorFile.open(path).sample_sha256()
        records.append(replace(weights, sample_sha256=sample, sha256=None, origin="random"))
    (target / MANIFEST).write_bytes(replace(manifest, weights=tuple(records)).to_json())


def random_tensor(name: str, entries: Mapping[str, TensorEntry]) -> Tensor | None:
    """One of a file's tensors, of values that keep activations of ordinary size: norms near 1, biases near 0, matrices
    scaled by their inputs, quantized ones through their scales. None for a type that no graph reads."""
    import torch

    from ..export.quantize.formats import fp4_codes, pack, to_fp8
    from ..export.quantize.quantized_weights import SCALE, TENSOR_SCALE

    entry, device = entries[name], "cuda" if torch.cuda.is_available() else "cpu"
    layer, _, end = name.rpartition(".")
    weight = entries.get(f"{layer}.weight")
    if weight is not None and weight.dtype in CODE_SPREAD and end in (SCALE, TENSOR_SCALE):
        scale = GAIN / weight.shape[-1] ** 0.5 / CODE_SPREAD[weight.dtype]
        if weight.dtype == "F4":
            scale = scale / BLOCK_SCALE if end == TENSOR_SCALE else BLOCK_SCALE
        values = torch.full(entry.shape, scale, device=device)
    else:
        values = torch.randn(entry.shape, device=device)
        if entry.dtype in CODE_SPREAD:
            values *= CODE_SPREAD[entry.dtype]
        elif len(entry.shape) == 1:
            values = 1 + 0.02 * values if end == "weight" else 0.02 * values
        else:
            values *= GAIN / prod(entry.shape[1:]) ** 0.5
    if entry.dtype == "F4":
        return pack(fp4_codes(values))
    if entry.dtype == "F8_E4M3":
        return to_fp8(values)
    return values.to(getattr(torch, DTYPES[entry.dtype])) if entry.dtype in DTYPES else None


def main() -> None:
    parser = argparse.ArgumentParser(description="A bundle without its weights' bytes, and random ones for it.")
    commands = parser.add_subparsers(dest="command", required=True)
    stripping = commands.add_parser("strip", help="copy a bundle without its weights")
    stripping.add_argument("bundle")
    stripping.add_argument("bare", type=Path, help="the folder to make")
    commands.add_parser("fill", help="write random weights").add_argument("bare", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "strip":
        strip(Bundle.open(arguments.bundle), arguments.bare)
    else:
        fill(arguments.bare)


if __name__ == "__main__":
    run_main(main)

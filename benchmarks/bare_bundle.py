"""A bundle without its weights' bytes, to carry to a machine and fill with random ones there.

    python -m kontext_trt.benchmarks.bare_bundle strip BUNDLE BARE
    python -m kontext_trt.benchmarks.bare_bundle fill BARE

BARE is a few megabytes whatever the model's size. Filled, it opens and runs as the original does, on random weights.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import torch

from ..engine.bundle import MANIFEST, Bundle
from ..engine.manifest import WeightsRecord, parse_manifest
from ..engine.tensor_file import TensorEntry, TensorFile

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def strip(bundle: Bundle, target: Path) -> None:
    """Copy everything but the weights' data. Each weights file becomes its header alone, named `.header`."""
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
    """Write random weights behind every header, and note in the manifest that they are others."""
    manifest = parse_manifest((target / MANIFEST).read_bytes(), str(target))
    torch.manual_seed(0)
    records: list[WeightsRecord] = []
    for weights in manifest.weights:
        path = target / weights.path
        header = Path(f"{path}.header").read_bytes()
        with path.open("wb") as file:
            file.write(header)
            file.truncate(weights.size_bytes)
        entries = sorted(TensorFile.open(path).tensors.items(), key=lambda item: item[1].offset)
        with path.open("r+b") as file:
            for name, entry in entries:
                file.seek(entry.offset)
                file.write(random_tensor(name, entry).view(torch.uint8).cpu().numpy().tobytes())
        sample = TensorFile.open(path).sample_sha256()
        records.append(replace(weights, sample_sha256=sample, sha256=None, origin="random"))
    (target / MANIFEST).write_bytes(replace(manifest, weights=tuple(records)).to_json())


def random_tensor(name: str, entry: TensorEntry) -> torch.Tensor:
    """Values that keep activations of ordinary size: norms near 1, biases near 0, matrices scaled by their inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    values = torch.randn(entry.shape, device=device)
    if len(entry.shape) == 1:
        values = 1 + 0.02 * values if name.endswith("weight") else 0.02 * values
    else:
        values *= 0.7 / prod(entry.shape[1:]) ** 0.5
    return values.to(DTYPES[entry.dtype]).contiguous()


if __name__ == "__main__":
    if sys.argv[1] == "strip":
        strip(Bundle.open(sys.argv[2]), Path(sys.argv[3]))
    else:
        fill(Path(sys.argv[2]))

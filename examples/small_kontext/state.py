"""Writes a training's state as files small enough to be sent.

It is one safetensors blob, cut in parts, and what it is in JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from ...engine.errors import CheckpointError

PART_BYTES = 15_900_000
INDEX = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """Says how far a training is.

    `stage` is "vae" or "flow"; `seconds` what it has used of its time; `shift` and `scaling` normalise latents, once
    the autoencoder is done; tokenizers are JSON.
    """

    clip: str
    t5: str
    smoke: bool
    seed: int
    stage: str = "vae"
    seconds: float = 0.0
    vae_steps: int = 0
    flow_steps: int = 0
    epoch: int = 0
    shift: float = 0.0
    scaling: float = 1.0


def save_state(folder: Path, progress: TrainingProgress, tensors: dict[str, Tensor]) -> None:
    """Replace `folder` by this state: state.json and part-0.bin, part-1.bin and so on."""
    blob = save(tensors)
    parts = [blob[start : start + PART_BYTES] for start in range(0, len(blob), PART_BYTES)]
    fresh, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    for i, part in enumerate(parts):
        (fresh / f"part-{i}.bin").write_bytes(part)
    index = {"progress": asdict(progress), "parts": [hashlib.sha256(part).hexdigest() for part in parts]}
    (fresh / INDEX).write_text(json.dumps(index))
    if folder.exists():
        os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> tuple[TrainingProgress, dict[str, Tensor]]:
    """Read a state; raise CheckpointError if a part is missing or is another state's."""
    try:
        index = json.loads((folder / INDEX).read_text())
        progress, hashes = TrainingProgress(**index["progress"]), index["parts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no state of a training ({error}); it should have a {INDEX}") from error
    parts = []
    for i, expected in enumerate(hashes):
        path = folder / f"part-{i}.bin"
        part = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(part).hexdigest() != expected:
            raise CheckpointError(f"{path} is missing, cut short or of another state; copy the whole folder again")
        parts.append(part)
    return progress, load(b"".join(parts))

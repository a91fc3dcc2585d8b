"""LoRA files in PEFT's layout, written by hand, and the weights that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from kontext_trt import Bundle
from kontext_trt.engine.branches import BranchedLayer

Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""A (rank, inputs) and B (outputs, rank) by layer, the scale of the file's own being 1."""
HALVES = {"norm_out.scale": slice(0, 1), "norm_out.shift": slice(1, 2)}
"""Diffusers has one layer for both."""


def layers_of(bundle: Bundle) -> dict[str, BranchedLayer]:
    """All layers that have branches, by name."""
    assert bundle.manifest.branches is not None
    return {layer.name: layer for listed in bundle.manifest.branches.layers.values() for layer in listed}


def random_pairs(bundle: Bundle, rank: int, seed: int, only: Iterable[str] | None = None) -> dict:
    """Matrices of every layer, or of some, that change it by about a tenth of what it gives."""
    rng, found = np.random.default_rng(seed), {}
    for name, layer in sorted(layers_of(bundle).items()):
        if (only is None or name in set(only)) and name not in HALVES:
            down = rng.standard_normal((rank, layer.inputs), dtype=np.float32) / layer.inputs**0.5
            up = 0.1 * rng.standard_normal((layer.outputs, rank), dtype=np.float32) / rank**0.5
            found[name] = (down, up)
    return found


def write_lora(path: Path, pairs: Pairs) -> Path:
    """Write them as PEFT does, without metadata: the scale is 1."""
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors[f"transformer.{name}.lora_A.weight"] = np.ascontiguousarray(down)
        tensors[f"transformer.{name}.lora_B.weight"] = np.ascontiguousarray(up)
    save_file(tensors, path)
    return path


def fuse_by_hand(checkpoint: Path, pairs: Pairs, scale: float) -> None:
    """Add them to the weights of a diffusers folder of one's own, in float64."""
    (file,) = (checkpoint / "transformer").glob("*.safetensors")
    weights = load_file(file)
    for name, (down, up) in pairs.items():
        weight = weights[f"{name}.weight"]
        delta = scale * up.astype(np.float64) @ down.astype(np.float64)
        weights[f"{name}.weight"] = (weight.astype(np.float64) + delta).astype(weight.dtype)
    save_file(weights, file)

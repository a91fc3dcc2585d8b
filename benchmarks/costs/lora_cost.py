"""Measures what fusing a LoRA costs in seconds, peak anonymous memory and disk, beside diffusers' `fuse_lora`.

    python -m kontext_trt.benchmarks.costs.lora_cost [--rank 16] [--blocks 1 2] [--share 1.0] [--json]

The LoRA changes every linear layer of the blocks and every modulation layer. First it is fused into a bundle of FLUX.1
Kontext's real shapes (sparse; what is fused takes disk, about 23 GB for all of it: `--share` takes that share of the
blocks), then into one with few blocks of full width, a model that diffusers can hold, and there by diffusers, too: from
the file of the transformer to the file of the fused one, as users do it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import struct
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...export.environment import quiet_libraries, require_export
from ..program import positive, print_rows, run_main
from .measure import ProcessCost, disk_bytes, measure_module

MODULE = "kontext_trt.benchmarks.costs.lora_cost"
LORA = "lora.safetensors"


def _config(blocks: tuple[int, int]):
    from ...export.configs import ModelConfig, TransformerConfig

    return ModelConfig(transformer=TransformerConfig(num_double_blocks=blocks[0], num_single_blocks=blocks[1]))


def lora_layers(shapes: Mapping[str, tuple[int, ...]], share: float) -> dict[str, tuple[int, int]]:
    """Return the linear layers of the first blocks, a share of each kind, and their shapes (outputs, inputs)."""
    layers: dict[str, tuple[int, int]] = {}
    for kind in ("transformer_blocks", "single_transformer_blocks"):
        of_kind = {name: shape for name, shape in shapes.items() if name.startswith(f"{kind}.")}
        number = max(1, round(share * len({name.split(".")[1] for name in of_kind})))
        for name, shape in of_kind.items():
            if len(shape) == 2 and int(name.split(".")[1]) < number:
                layers[name.removesuffix(".weight")] = (shape[0], shape[1])
    return layers


def write_lora(path: Path, layers: Mapping[str, tuple[int, int]], rank: int) -> int:
    """Write a LoRA of random numbers in bf16 under diffusers' names, tensor by tensor; return how many it changes."""
    shapes = {
        f"transformer.{name}.lora_{side}.weight": (rank, inputs) if side == "A" else (outputs, rank)
        for name, (outputs, inputs) in layers.items()
        for side in "AB"
    }
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for shape in shapes.values():
            values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            file.write((values.view("<u4") >> 16).astype("<u2").tobytes())
    return sum(outputs * inputs for outputs, inputs in layers.values())


def fuse_ours(folder: Path) -> None:
    """Fuse FOLDER's LoRA into FOLDER's bundle, in a child process, and print how long that alone took."""
    from ...export.fuse_lora import fuse_lora

    start = time.perf_counter()
    fused = fuse_lora(folder / "bundle", folder / "fused", [folder / LORA])
    seconds = time.perf_counter() - start
    written = sum(record.size_bytes for record in fused.manifest.weights if record.origin == "fused")
    print(json.dumps({"seconds": seconds, "written_bytes": written}))


def fuse_by_diffusers(folder: Path, blocks: tuple[int, int]) -> None:
    """Fuse the same into the same transformer with diffusers, in a child process, and save it."""
    import torch
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import load_file

    start = time.perf_counter()
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=blocks[0], num_single_layers=blocks[1], guidance_embeds=True)
    (file,) = (folder / "checkpoint/transformer").glob("*.safetensors")
    model.load_state_dict(load_file(file), assign=True)
    model.load_lora_adapter(load_file(folder / LORA))
    model.fuse_lora()
    model.unload_lora()
    model.save_pretrained(folder / "diffusers")
    seconds = time.perf_counter() - start
    written = sum(one.stat().st_size for one in (folder / "diffusers").glob("*.safetensors"))
    print(json.dumps({"seconds": seconds, "written_bytes": written}))


def row(what: str, cost: ProcessCost, fused_bytes: int, disk: int) -> dict[str, float | str]:
    """Return one line of the table: what was measured, as a whole and per GB of weights that the LoRA changes."""
    gigabytes = fused_bytes / 1e9
    return {
        "what": what,
        "changed_GB": round(gigabytes, 2),
        "seconds": round(cost.report["seconds"], 1),
        "peak_anonymous_GB": round(cost.peak_anonymous_bytes / 1e9, 2),
        "disk_GB": round(disk / 1e9, 2),
        "seconds_per_GB": round(cost.report["seconds"] / gigabytes, 2),
    }


def run(rank: int, blocks: tuple[int, int], share: float) -> list[dict[str, float | str]]:
    """Measure the whole transformer, one of so many `blocks`, and diffusers with the latter."""
    from ...export.checkpoint import open_checkpoint
    from ...export.export import export_bundle
    from ..fixtures.sparse_checkpoint import write_sparse_checkpoint

    quiet_libraries()
    rows = []
    for depth in (None, blocks):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_sparse_checkpoint(folder / "checkpoint", None if depth is None else _config(depth))
            checkpoint = open_checkpoint(folder / "checkpoint")
            export_bundle(checkpoint, folder / "bundle")
            shapes = {name: view.shape for name, view in checkpoint.transformer.weights.views.items()}
            changed = 2 * write_lora(folder / LORA, lora_layers(shapes, share if depth is None else 1.0), rank)
            cost = measure_module(MODULE, "--child-ours", str(folder))
            words = f"{len(shapes)} tensors" if depth is None else f"{blocks[0]} + {blocks[1]} blocks"
            disk = disk_bytes(folder / "fused", besides=folder / "bundle")
            rows.append(row(f"kontext-trt, {words}, rank {rank}", cost, changed, disk))
            if depth is not None:
                cost = measure_module(MODULE, "--child-diffusers", str(folder), "--blocks", *map(str, blocks))
                rows.append(row(f"diffusers, {words}, rank {rank}", cost, changed, disk_bytes(folder / "diffusers")))
    return rows


def main() -> None:
    """Measure and print what fusing costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rank", type=positive, default=16)
    parser.add_argument("--blocks", type=positive, nargs=2, default=(1, 2), help="blocks for the comparison")
    parser.add_argument(
        "--share", type=float, default=1.0, help="the share of the whole model's blocks that is changed"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child-ours", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child-diffusers", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    require_export()
    if arguments.child_ours:
        return fuse_ours(arguments.child_ours)
    if arguments.child_diffusers:
        return fuse_by_diffusers(arguments.child_diffusers, tuple(arguments.blocks))
    rows = run(arguments.rank, tuple(arguments.blocks), arguments.share)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": version("torch"),
        "diffusers": version("diffusers"),
        "load": round(os.getloadavg()[0], 1),
    }
    return print_rows(about, rows, as_json=arguments.json)


if __name__ == "__main__":
    run_main(main)

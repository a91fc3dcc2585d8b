"""Measures what building the denoiser costs: seconds and peak anonymous memory per GB of weights, and for the whole.

Full-width blocks (hidden 3072, 24 heads of 128) of random weights, as many as asked for, built by TensorRT-RTX; no GPU
is needed. A line through the measurements is drawn out to the 19 + 38 blocks of FLUX.1.

What sets the peak (seen by sampling the compiler's process): it grows by about the size of the weights before the first
byte of the plan is handed out, and falls only at the end, so the finished plan lies in memory as a whole; the rest is
what the compiler lays out anew. The weights themselves are mapped from their file and do not count. Streaming the plan
takes 64 MiB more.

    python -m kontext_trt.benchmarks.costs.build_cost --blocks 1+1 --blocks 2+2
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.builder.build import build
from ...engine.builder.plan_build import BuildPolicy, plan_build
from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER
from ...engine.flavour import FlavourName, load_flavour
from ...engine.plans.coverage import Coverage
from ...engine.plans.targets import make_target
from ...engine.sizes import TRAINED_SIZES
from ...engine.system.gpus import find_gpus
from ...export.environment import quiet_libraries, require_export
from ..program import DEFAULT_BLOCKS, parse_blocks, run_main

WHOLE_BYTES = 17_243_396_224
"""The size of the 19 + 38 blocks of FLUX.1's denoiser in bf16."""


def full_width_bundle(folder: Path, doubles: int, singles: int) -> Bundle:
    """Export a bundle whose transformer has full-width blocks; the other networks are tiny."""
    import torch

    from ...export.checkpoint import CheckpointFiles, open_checkpoint
    from ...export.export import export_bundle
    from ...export.tiny import tiny_pipeline

    pipeline = tiny_pipeline(head_width=128)
    torch.set_default_dtype(torch.bfloat16)
    config = dict(pipeline.transformer.config) | {
        "num_layers": doubles,
        "num_single_layers": singles,
        "num_attention_heads": 24,
    }
    pipeline.transformer = type(pipeline.transformer).from_config(config)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        torch.nn.Module.to(part, dtype=torch.bfloat16)
    torch.set_default_dtype(torch.float32)
    pipeline.save_pretrained(folder / "checkpoint")
    del pipeline
    return export_bundle(open_checkpoint(folder / "checkpoint", CheckpointFiles()), folder / "bundle")


def measure(blocks: tuple[int, int], gpu: str, work: Path | None) -> dict[str, Any]:
    """Build the denoiser of so many double+single blocks, and check that its attention is fused."""
    doubles, singles = blocks
    flavour, gpus = load_flavour(FlavourName.TENSORRT_RTX), find_gpus()[0]
    with tempfile.TemporaryDirectory(dir=work) as folder:
        bundle = full_width_bundle(Path(folder), doubles, singles)
        target, policy = make_target(flavour, gpu, gpus), BuildPolicy(rebuild=True)
        (planned,) = plan_build(bundle, [DENOISER.name], target, Coverage(sizes=TRAINED_SIZES), policy=policy)
        manifest = build(planned).manifest
    assert sum(manifest.census.attention.values()) == doubles + singles, manifest.census.describe()
    report = manifest.build
    return {
        "blocks": f"{doubles}+{singles}",
        "weight_gb": report.weight_bytes / 1e9,
        "plan_gb": manifest.size_bytes / 1e9,
        "seconds": report.seconds,
        "peak_gb": report.peak_bytes / 1e9,
        "peak_per_weight_byte": report.peak_bytes / report.weight_bytes,
        "census": manifest.census.describe(),
        "target": str(manifest.ingredients.target),
    }


def main() -> None:
    """Measure what building the denoiser costs."""
    parser = argparse.ArgumentParser(description="What building the denoiser costs.")
    parser.add_argument("--blocks", action="append", help="double+single, several times; default 1+1 and 2+2")
    parser.add_argument("--gpu", default="sm_120", help="compute capability")
    parser.add_argument("--work", type=Path, help="where weights and plans go while it runs")
    arguments = parser.parse_args()
    counts = [parse_blocks(one) for one in arguments.blocks or DEFAULT_BLOCKS]
    require_export()
    quiet_libraries()
    rows = [measure(one, arguments.gpu, arguments.work) for one in counts]
    for row in rows:
        print(
            f"{row['blocks']:>6}  {row['weight_gb']:.2f} GB of weights  {row['seconds']:.1f} s  "
            f"peak {row['peak_gb']:.2f} GB ({row['peak_per_weight_byte']:.2f} x weights)  {row['census']}"
        )
    if len(rows) > 1:
        weights = [row["weight_gb"] for row in rows]
        for what, unit in (("seconds", "s"), ("peak_gb", "GB")):
            slope, base = np.polyfit(weights, [row[what] for row in rows], 1)
            whole = base + slope * WHOLE_BYTES / 1e9
            print(f"{what} = {base:.2f} + {slope:.2f} per GB; 19+38 blocks: {whole:.0f} {unit}")
    print(json.dumps(rows))


if __name__ == "__main__":
    run_main(main)

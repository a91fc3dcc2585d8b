"""Compares plans of the denoiser: with branches for LoRAs, with weights that can be exchanged (refit), with neither.

    python -m kontext_trt.benchmarks.costs.lora_plan_cost [--rank 16] [--gpu "rtx 4090"] [--json]

The small checkpoint's denoiser in bf16, compiled by TensorRT-RTX: bytes of the plan, of weights and of activations, and
what the compiler made of the graph. Without a GPU it compiles no plan for refit; the refusal is printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ...engine.builder.build import build
from ...engine.builder.plan_build import BuildPolicy, plan_build
from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER, Precision
from ...engine.errors import BuildError
from ...engine.flavour import FlavourName, load_flavour
from ...engine.plans.coverage import Coverage
from ...engine.plans.options import BuildOptions, Refit
from ...engine.plans.targets import make_target
from ...engine.system.gpus import find_gpus
from ...export.environment import quiet_libraries, require_export
from ..program import positive, run_main

SMALL = Path(__file__).parents[2] / "examples" / "small_kontext" / "checkpoint"


def measure(bundle: Bundle, gpu: str, refit: Refit) -> dict[str, Any]:
    """Compile the denoiser, and return what came of it."""
    flavour = load_flavour(FlavourName.TENSORRT_RTX)
    target = make_target(flavour, gpu, find_gpus()[0])
    coverage = Coverage(sizes=bundle.manifest.model.sizes[:1], max_steps=8)
    options, policy = BuildOptions(refit=refit), BuildPolicy(rebuild=True)
    (planned,) = plan_build(bundle, [DENOISER.name], target, coverage, options, policy=policy)
    manifest = build(planned).manifest
    census = manifest.census
    return {
        "plan_MB": round(manifest.size_bytes / 1e6, 2),
        "weights_MB": round(census.weight_bytes / 1e6, 2),
        "activations_MB": round(census.activation_bytes / 1e6, 2),
        "layers": census.layers,
        "products": sum(census.gemms.values()),
        "copies": census.copies,
        "seconds": round(manifest.build.seconds, 1),
    }


def main() -> None:
    """Compile each kind and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rank", type=positive, default=16)
    parser.add_argument("--gpu", default="sm_89")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    require_export()
    quiet_libraries()
    from ...export.export import ExportOptions, export_bundle

    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        for rank in (0, arguments.rank):
            options = ExportOptions(precision=Precision.BF16, lora_rank=rank, copy=True)
            bundle = export_bundle(SMALL, Path(name) / str(rank), options)
            for refit in Refit if rank == 0 else (Refit.NONE,):
                kind = f"branches of rank {rank}" if rank else f"refit {refit.value}"
                try:
                    rows[kind] = measure(bundle, arguments.gpu, refit)
                except BuildError as error:
                    rows[kind] = {"refused": str(error)}
    if arguments.json:
        print(json.dumps({"date": time.strftime("%Y-%m-%d"), **rows}))
        return
    for kind, row in rows.items():
        print(f"{kind:24} " + "  ".join(f"{what} {value}" for what, value in row.items()))


if __name__ == "__main__":
    run_main(main)

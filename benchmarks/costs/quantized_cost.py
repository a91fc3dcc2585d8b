"""Measures what a quantized denoiser of FLUX.1's width weighs, and what quantizing and compiling it take.

    python -m kontext_trt.benchmarks.costs.quantized_cost --recipe fp8 --blocks 1+1 --blocks 2+2
    python -m kontext_trt.benchmarks.costs.quantized_cost --recipe nvfp4 --blocks 19+38

Blocks are of full width (3072, 24 heads of 128), as many double+single ones as asked for; the other networks are tiny.
The checkpoint is a sparse file that reads as zeros; quantized weights are filled with random bytes before they are
compiled, so that nothing can be folded. Two or more sizes are fitted by a line and drawn out to 19+38 blocks.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.builder.build import build
from ...engine.builder.plan_build import BuildPolicy, plan_build
from ...engine.bundle.bundle import MANIFEST, WEIGHTS, Bundle
from ...engine.bundle.tensor_file import TensorFile
from ...engine.components import DENOISER, Precision
from ...engine.flavour import FlavourName, load_flavour
from ...engine.plans.coverage import Coverage
from ...engine.plans.targets import make_target
from ...engine.sizes import TRAINED_SIZES
from ...export.configs import ModelConfig
from ...export.environment import quiet_libraries, require_export
from ...export.graphs.recipes import RecipeName, make_recipe
from ..fixtures.made_up_ranges import quantize_at_made_up_ranges
from ..fixtures.sparse_checkpoint import write_sparse_transformer
from ..program import DEFAULT_BLOCKS, parse_blocks, run_main
from .measure import measure_module

MODULE = "kontext_trt.benchmarks.costs.quantized_cost"


def make_bundle(folder: Path, doubles: int, singles: int) -> Bundle:
    """Export a bf16 bundle whose transformer has full-width blocks of zeros that take no disk."""
    from ...export.checkpoint import open_checkpoint
    from ...export.configs import TransformerConfig
    from ...export.export import ExportOptions, export_bundle
    from ...export.tiny import tiny_config, tiny_pipeline

    tiny_pipeline().save_pretrained(folder / "checkpoint")
    shutil.rmtree(folder / "checkpoint/transformer")
    tiny = tiny_config().transformer
    config = TransformerConfig(
        num_double_blocks=doubles,
        num_single_blocks=singles,
        text_width=tiny.text_width,
        pooled_width=tiny.pooled_width,
    )
    write_sparse_transformer(folder / "checkpoint/transformer/model.safetensors", config)
    options = ExportOptions(precision=Precision.BF16)
    return export_bundle(open_checkpoint(folder / "checkpoint"), folder / "bundle", options)


def quantize(folder: Path, recipe: RecipeName) -> None:
    """Quantize FOLDER/bundle, with made-up ranges, to FOLDER/quantized, in a child process."""
    made = quantize_at_made_up_ranges(Bundle.open(folder / "bundle"), folder / "quantized", make_recipe(recipe.value))
    print(json.dumps({"weight_bytes": made.graph(DENOISER).weight_bytes}))


def fill_with_random_bytes(path: Path) -> None:
    """Make weights any codes, E4M3 scales ordinary numbers, and float32 scales 0.001."""
    draw = np.random.default_rng(0)
    data = np.memmap(path, np.uint8, mode="r+")
    for name, entry in TensorFile.open(path).tensors.items():
        target = data[entry.offset : entry.offset + entry.size_bytes]
        if entry.dtype == "F32":
            target[:] = np.full(entry.num_items, 1e-3, np.float32).view(np.uint8)
            continue
        low, high = (0x20, 0x40) if name.endswith("scale") else (0, 0x7F)
        for start in range(0, len(target), 64 << 20):
            piece = target[start : start + (64 << 20)]
            piece[:] = draw.integers(low, high, len(piece), np.uint8)
    data.flush()


def with_random_weights(bundle: Bundle, *, whole: bool = False) -> Bundle:
    """Replace a bundle's quantized weights by random ones, its manifest as well, and open it again.

    With `whole` all weights are replaced, also in the files that others share with it.
    """
    from ...export.records import weights_record

    records = {record.path: record for record in bundle.manifest.weights}
    for file in sorted((bundle.path / WEIGHTS).glob("*.safetensors" if whole else "denoiser.*.safetensors")):
        fill_with_random_bytes(file)
        record = weights_record(file, "quantized")
        records[record.path] = record
    (bundle.path / MANIFEST).write_bytes(replace(bundle.manifest, weights=tuple(records.values())).to_json())
    return Bundle.open(bundle.path)


def measure(
    blocks: tuple[int, int], recipe: RecipeName, gpu: str, work: Path | None, compile_it: bool
) -> dict[str, Any]:
    """Quantize a denoiser of so many double+single blocks, compile it if asked to, and return what that took."""
    doubles, singles = blocks
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        make_bundle(folder, doubles, singles)
        cost = measure_module(MODULE, "--child", str(folder), "--recipe", recipe.value)
        bundle = Bundle.open(folder / "quantized")
        graph, plain = bundle.graph(DENOISER), Bundle.open(folder / "bundle").graph(DENOISER)
        row: dict[str, Any] = {
            "blocks": f"{doubles}+{singles}",
            "recipe": recipe.value,
            "bf16_gb": plain.weight_bytes / 1e9,
            "weight_gb": graph.weight_bytes / 1e9,
            "quantize_seconds": cost.seconds,
            "quantize_peak_gb": cost.peak_anonymous_bytes / 1e9,
        }
        if compile_it:
            row |= compile_denoiser(bundle, gpu)
    return row


def compile_denoiser(bundle: Bundle, gpu: str) -> dict[str, Any]:
    """Build the plan with random weights; every product and every attention must be as the recipe says."""
    bundle = with_random_weights(bundle)
    target = make_target(load_flavour(FlavourName.TENSORRT_RTX), gpu, ())
    policy = BuildPolicy(rebuild=True)
    (planned,) = plan_build(bundle, [DENOISER.name], target, Coverage(sizes=TRAINED_SIZES), policy=policy)
    manifest = build(planned).manifest
    census = manifest.census
    assert not census.strays, census.strays
    assert sum(census.attention.values()) == census.attention_asked, census.describe()
    return {
        "plan_gb": manifest.size_bytes / 1e9,
        "plan_weight_gb": census.weight_bytes / 1e9,
        "build_seconds": manifest.build.seconds,
        "build_peak_gb": manifest.build.peak_bytes / 1e9,
        "peak_per_weight_byte": manifest.build.peak_bytes / manifest.build.weight_bytes,
        "census": census.describe(),
        "target": str(manifest.ingredients.target),
    }


FITTED = ("weight_gb", "quantize_seconds", "quantize_peak_gb", "plan_weight_gb", "build_seconds", "build_peak_gb")


def fit(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return each cost of the whole, by a line over the bytes of bf16 weights."""
    from ...export.graphs.trace import expected_tensors

    whole = 2e-9 * sum(prod(shape) for shape in expected_tensors(DENOISER.name, ModelConfig()).values())
    sizes = [row["bf16_gb"] for row in rows]
    found: dict[str, float] = {}
    for what in FITTED:
        if what in rows[0]:
            slope, base = np.polyfit(sizes, [row[what] for row in rows], 1)
            found[what] = float(base + slope * whole)
    return found


def main() -> None:
    """Measure what a quantized denoiser weighs and takes."""
    parser = argparse.ArgumentParser(description="What a quantized denoiser weighs and takes.")
    parser.add_argument("--recipe", choices=[one.value for one in RecipeName], default=RecipeName.NVFP4.value)
    parser.add_argument("--blocks", action="append", help="double+single, several times; default 1+1 and 2+2")
    parser.add_argument("--gpu", default="sm_120", help="compute capability")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="also build the plan")
    parser.add_argument("--work", type=Path, help="where weights and plans go while it runs")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    recipe = RecipeName(arguments.recipe)
    counts = [parse_blocks(one) for one in arguments.blocks or DEFAULT_BLOCKS]
    require_export()
    quiet_libraries()
    if arguments.child is not None:
        quantize(arguments.child, recipe)
        return
    print(f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}")
    rows = []
    for one in counts:
        rows.append(measure(one, recipe, arguments.gpu, arguments.work, arguments.compile))
        print(
            "  ".join(
                f"{name} {value:.2f}" if isinstance(value, float) else f"{value}" for name, value in rows[-1].items()
            )
        )
    if len(rows) > 1:
        print("19+38 blocks: " + "  ".join(f"{name} {value:.2f}" for name, value in fit(rows).items()))
    print(json.dumps(rows))


if __name__ == "__main__":
    run_main(main)

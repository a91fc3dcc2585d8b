"""Measures what swapping LoRAs costs: milliseconds from the call to the next request, bytes, and a branch's share.

    python -m kontext_trt.benchmarks.costs.lora_swap_cost [--rank 16] [--full] [--json]

The small checkpoint is exported with branches, and a LoRA of every layer is swapped in on the CPU, from a file and from
what is remembered of it. With `--full`, graphs of FLUX.1 Kontext's real shapes are exported, over a checkpoint that
takes no disk: the bytes of its inputs, the time to pack them, and from the graph of a step the arithmetic and the bytes
of branches that are not used.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...engine.branches import BranchedLayer, Branches
from ...engine.bundle.bundle import Bundle
from ...engine.components import DENOISER, Precision
from ...engine.lora.changes import LoraFile, LowRank, Place
from ...export.environment import quiet_libraries, require_export
from ...runtime.executors.options import Device, OnnxRuntimeOptions
from ...runtime.flow.kept import KeptValues, kept_bytes
from ...runtime.kontext import Kontext
from ...runtime.packing import pack
from ..bench.graph_work import GraphWork
from ..bench.records import Case
from ..bench.roofline import work_of
from ..program import positive, run_main

SMALL = Path(__file__).parents[2] / "examples" / "small_kontext" / "checkpoint"
BUS_GB_PER_S = {"PCIe 4.0 x16": 25.0, "PCIe 5.0 x16": 50.0}
"""The bytes per nanosecond that page-locked memory is copied to a GPU with, a little below what the buses are made for.
"""
HALVES = ("norm_out.scale", "norm_out.shift")


def layers_of(branches: Branches) -> dict[str, BranchedLayer]:
    """Return all layers that have branches, by name, but those that files have under another."""
    listed = (layer for layers in branches.layers.values() for layer in layers)
    return {layer.name: layer for layer in listed if layer.name not in HALVES}


def random_lora(layers: Iterable[BranchedLayer], rank: int) -> LoraFile:
    """Return a LoRA of some layers, of random matrices that change little."""
    rng = np.random.default_rng(0)
    changes = tuple(
        LowRank(
            place=Place(part="transformer", tensor=f"{layer.name}.weight"),
            down=rng.standard_normal((rank, layer.inputs), dtype=np.float32),
            up=np.float32(1e-3) * rng.standard_normal((layer.outputs, rank), dtype=np.float32),
            scale=1.0,
        )
        for layer in layers
    )
    return LoraFile(name="random", sha256="0" * 64, family="random", changes=changes)


def write(lora: LoraFile, path: Path) -> Path:
    """Write a LoRA's file as PEFT does."""
    from safetensors.numpy import save_file

    tensors: dict[str, Any] = {}
    for change in lora.changes:
        assert isinstance(change, LowRank)
        stem = f"transformer.{change.place.tensor.removesuffix('.weight')}"
        tensors |= {f"{stem}.lora_A.weight": change.down, f"{stem}.lora_B.weight": change.up}
    save_file(tensors, path)
    return path


def small_bundle(folder: Path, rank: int) -> Bundle:
    """Export the small checkpoint in float32, with branches."""
    from ...export.export import ExportOptions, export_bundle

    return export_bundle(SMALL, folder / "small", ExportOptions(precision=Precision.FP32, lora_rank=rank, copy=True))


def measure_swaps(bundle: Bundle, files: tuple[Path, Path], repeat: int = 5) -> dict[str, float]:
    """Return the milliseconds from the call to where the next request begins, of files that are new and remembered."""
    with Kontext.open(bundle, executor=OnnxRuntimeOptions(device=Device.CPU)) as kontext:
        request: dict[str, Any] = {"steps": 1, "seed": 1, "size": (64, 64)}
        kontext.generate("x", **request)
        original, copied = kontext.executor.keep, list[float]()

        def keep(values: KeptValues) -> None:
            copied.append(_seconds(lambda: original(values)))

        kontext.executor.keep = keep  # pyright: ignore[reportAttributeAccessIssue]
        times: dict[str, list[float]] = {"new": [], "remembered": []}
        for number in range(repeat):
            for file in files:
                file.touch()
                times["new"].append(_seconds(lambda file=file: kontext.set_lora([(file, 1.0)])))
                kontext.generate("x", **request)
                times["new"][-1] += copied.pop()
            again = files[number % 2 - 1]
            times["remembered"].append(_seconds(lambda again=again: kontext.set_lora([(again, 1.0)])))
            kontext.generate("x", **request)
            times["remembered"][-1] += copied.pop() if copied else 0.0
    return {name: 1e3 * statistics.median(listed) for name, listed in times.items()}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def branch_share(counted: GraphWork, bundle: Bundle) -> dict[str, float]:
    """Return what branches add to a step, in TFLOP, GB and percent of what the step has without them.

    Bytes are those of a runtime that adds a branch in the product's own kernel: operands and results of the narrow
    products, and the packed matrices once more in and out, as they are taken apart.
    """
    own = [one for one in counted.heavy if ".swapped." in one.node]
    operations, size = sum(one.operations for one in own), sum(one.size_bytes for one in own)
    size += 2 * component_bytes(bundle, DENOISER.name)
    whole, whole_bytes = (sum(getattr(one, name) for one in counted.heavy) for name in ("operations", "size_bytes"))
    other_bytes = whole_bytes - sum(one.size_bytes for one in own)
    return {
        "branch_TFLOP": operations / 1e12,
        "branch_percent_of_FLOPs": 100 * operations / (whole - operations),
        "branch_GB": size / 1e9,
        "branch_percent_of_bytes": 100 * size / other_bytes,
    }


def component_bytes(bundle: Bundle, component: str) -> int:
    """Return the bytes of the packed matrices of a component."""
    assert bundle.manifest.branches is not None
    return bundle.manifest.branches.values(component) * bundle.graph(component).precision.item_bytes


def full(folder: Path, rank: int) -> dict[str, float]:
    """Return what is reckoned for FLUX.1 Kontext: one edit at 1024x1024."""
    from ...export.checkpoint import open_checkpoint
    from ...export.export import ExportOptions, export_bundle
    from ..fixtures.sparse_checkpoint import write_sparse_checkpoint

    write_sparse_checkpoint(folder / "checkpoint")
    bundle = export_bundle(open_checkpoint(folder / "checkpoint"), folder / "full", ExportOptions(lora_rank=rank))
    branches = bundle.manifest.branches
    assert branches is not None
    size = kept_bytes(bundle)
    lora = random_lora(layers_of(branches).values(), rank)
    packing = _seconds(lambda: pack([(lora, 1.0)], branches, bundle.graph(DENOISER).precision))
    case = Case(size=(1024, 1024), reference=(1024, 1024), steps=28, batch=1, seed=0, guidance=2.5, prompt="x")
    return {
        "full_inputs_MB": size / 1e6,
        "full_packing_ms": 1e3 * packing,
        **{f"full_copy_ms {bus}": size / rate / 1e6 for bus, rate in BUS_GB_PER_S.items()},
        **branch_share(work_of(bundle, DENOISER.name, case), bundle),
    }


def main() -> None:
    """Measure and print what swapping costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rank", type=positive, default=16)
    parser.add_argument("--full", action="store_true", help="also reckon for FLUX.1 Kontext, which takes minutes")
    parser.add_argument("--folder", type=Path, help="where files may be written")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    require_export()
    quiet_libraries()
    about = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "rank": arguments.rank}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        bundle = small_bundle(folder, arguments.rank)
        assert bundle.manifest.branches is not None
        lora = random_lora(layers_of(bundle.manifest.branches).values(), arguments.rank)
        files = write(lora, folder / "a.safetensors"), write(lora, folder / "b.safetensors")
        swaps = {f"swap_ms_{what}": value for what, value in measure_swaps(bundle, files).items()}
        line: dict[str, Any] = {**about, "onnxruntime": version("onnxruntime"), **swaps}
        line["small_inputs_MB"] = kept_bytes(bundle) / 1e6
        line["small_file_MB"] = files[0].stat().st_size / 1e6
        if arguments.full:
            line |= full(folder, arguments.rank)
    shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in line.items()}
    print(json.dumps(shown) if arguments.json else "\n".join(f"{name} {value}" for name, value in shown.items()))


if __name__ == "__main__":
    run_main(main)

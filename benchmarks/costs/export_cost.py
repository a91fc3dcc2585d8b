"""Measures what exporting costs in seconds, peak anonymous memory and disk, beside torch.onnx.export.

    python -m kontext_trt.benchmarks.costs.export_cost [--blocks 2 4] [--json]

First the whole checkpoint of FLUX.1 Kontext's real shapes (sparse, 12B transformer, T5-XXL, CLIP-L, VAE) is exported,
in bf16 and with transformer and T5 in FP8 with scales, then a denoiser of full width with a few blocks, a model that
torch's exporter can hold, through `torch.onnx.export` and `save` with real weights, per GB of weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from ...export.environment import quiet_libraries, require_export
from ..program import positive, print_rows, run_main
from .measure import ProcessCost, disk_bytes, measure_module

MODULE = "kontext_trt.benchmarks.costs.export_cost"


def _config(blocks: tuple[int, int]):
    from ...export.configs import ModelConfig, TransformerConfig

    return ModelConfig(transformer=TransformerConfig(num_double_blocks=blocks[0], num_single_blocks=blocks[1]))


def export_ours(folder: Path) -> None:
    """Export the checkpoint in FOLDER/checkpoint, in a child process, and print what its graphs hold."""
    from ...export.checkpoint import open_checkpoint
    from ...export.export import export_bundle

    quiet_libraries()
    bundle = export_bundle(open_checkpoint(folder / "checkpoint"), folder / "bundle")
    weights = sum(record.size_bytes for record in bundle.manifest.weights)
    print(json.dumps({"weight_bytes": weights}))


def export_plainly(folder: Path, blocks: tuple[int, int]) -> None:
    """Export the same denoiser with real weights, in a child process, through torch.onnx.export and save.

    It does so as torch's documentation has it.
    """
    import torch

    from ...engine.components import DENOISER
    from ...export.graphs.trace import Precision, example_dims, model_dims
    from ...export.networks.build import build_module
    from ...export.torch_types import torch_dtype

    config = _config(blocks)
    torch.set_default_dtype(torch.bfloat16)
    module = build_module(DENOISER.name, config)
    torch.set_default_dtype(torch.float32)
    component, dims = DENOISER, model_dims(config)
    examples = example_dims(dims)
    inputs = tuple(
        torch.zeros(
            [int(extent) for extent in dims.resolve(port.dims, **examples)],
            dtype=torch_dtype(port.element_type.resolve(Precision.BF16).number),
        )
        for port in component.inputs
    )
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, dim in enumerate(port.dims) if dim in examples}
        for port in component.inputs
    )
    with torch.no_grad():
        program = torch.onnx.export(
            module, inputs, dynamo=True, opset_version=23, dynamic_shapes=dynamic, verbose=False
        )
    assert program is not None
    program.save(folder / "plain.onnx", external_data=True)
    print(json.dumps({"weight_bytes": sum(p.numel() * p.element_size() for p in module.parameters())}))


def row(what: str, cost: ProcessCost, written: int) -> dict[str, float | str]:
    """Return one line of the table: what was measured, as a whole and per GB of weights."""
    gigabytes = cost.report["weight_bytes"] / 1e9
    return {
        "what": what,
        "weights_GB": round(gigabytes, 2),
        "seconds": round(cost.seconds, 1),
        "processor_seconds": round(cost.processor_seconds, 1),
        "peak_anonymous_GB": round(cost.peak_anonymous_bytes / 1e9, 2),
        "disk_MB": round(written / 1e6, 1),
        "seconds_per_GB": round(cost.seconds / gigabytes, 2),
        "anonymous_GB_per_GB": round(cost.peak_anonymous_bytes / 1e9 / gigabytes, 3),
        "disk_MB_per_GB": round(written / 1e6 / gigabytes, 1),
    }


def run(blocks: tuple[int, int]) -> list[dict[str, float | str]]:
    """Measure the whole checkpoint, one of so many `blocks`, and torch's own export of the latter's denoiser."""
    from ..fixtures.sparse_checkpoint import write_sparse_checkpoint

    quiet_libraries()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for what, depth, fp8 in (
            ("kontext-trt, 19 + 38 blocks", None, False),
            ("kontext-trt, 19 + 38 blocks, fp8_scaled with input scales", None, True),
            (f"kontext-trt, {blocks[0]} + {blocks[1]} blocks", blocks, False),
        ):
            folder = Path(name) / what.replace(" ", "")
            write_sparse_checkpoint(folder / "checkpoint", None if depth is None else _config(depth), fp8=fp8)
            cost = measure_module(MODULE, "--child-ours", str(folder))
            rows.append(row(what, cost, disk_bytes(folder / "bundle", besides=folder / "checkpoint")))
        folder = Path(name) / "plain"
        folder.mkdir()
        cost = measure_module(MODULE, "--child-plain", str(folder), "--blocks", *map(str, blocks))
        rows.append(row(f"torch.onnx.export, denoiser of {blocks[0]} + {blocks[1]}", cost, disk_bytes(folder)))
    return rows


def main() -> None:
    """Measure and print what exporting costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--blocks", type=positive, nargs=2, default=(2, 4), help="double and single blocks for the comparison"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child-ours", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child-plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    require_export()
    if arguments.child_ours:
        return export_ours(arguments.child_ours)
    if arguments.child_plain:
        return export_plainly(arguments.child_plain, tuple(arguments.blocks))
    rows = run(tuple(arguments.blocks))
    about = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "torch": version("torch")}
    return print_rows(about, rows, as_json=arguments.json)


if __name__ == "__main__":
    run_main(main)

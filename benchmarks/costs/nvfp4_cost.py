"""Measures what exporting a full-size NVFP4 file costs in seconds, peak anonymous memory and disk.

    python -m kontext_trt.benchmarks.costs.nvfp4_cost [--folder FOLDER] [--small SMALL] [--json]

The file has FLUX.1 Kontext's real shapes and the small checkpoint's weights, repeated (4.8 GB on disk); the bundle has
as much. The other parts are sparse. Its layout is found from the file, as for anybody's.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from ...export.environment import quiet_libraries, require_export
from ..program import run_main
from .measure import disk_bytes, measure_module

MODULE = "kontext_trt.benchmarks.costs.nvfp4_cost"
TRANSFORMER = Path("checkpoint", "flux1-kontext-dev-nvfp4.safetensors")
LAYOUT_LOGGER = "kontext_trt.export.checkpoint.nvfp4_layout"
SMALL = Path(__file__).parents[2] / "examples" / "small_kontext" / "checkpoint"


def export(folder: Path) -> None:
    """Open and export the checkpoint in FOLDER, in a child process, and print what took how long and was found."""
    from ...export.checkpoint import CheckpointFiles, open_checkpoint
    from ...export.checkpoint.nvfp4 import Nvfp4View
    from ...export.export import export_bundle

    quiet_libraries()
    logging.basicConfig(format="%(message)s")
    logging.getLogger(LAYOUT_LOGGER).setLevel(logging.INFO)
    start = time.perf_counter()
    opened = open_checkpoint(folder / "checkpoint", CheckpointFiles(transformer=folder / TRANSFORMER))
    seconds = time.perf_counter() - start
    views = [view for view in opened.transformer.weights.views.values() if isinstance(view, Nvfp4View)]
    bundle = export_bundle(opened, folder / "bundle")
    quantization = bundle.graph("denoiser").quantization
    products = quantization.products if quantization else {}
    layouts = sorted({view.layout.name for view in views if view.layout})
    print(json.dumps({"seconds_to_open": round(seconds, 1), "layouts": layouts, **products}))


def run(folder: Path, small: Path) -> dict[str, object]:
    """Write the checkpoint in `folder`, export it, and return what it cost."""
    from ..fixtures.nvfp4_checkpoint import write_nvfp4_transformer
    from ..fixtures.sparse_checkpoint import write_sparse_checkpoint

    write_sparse_checkpoint(folder / "checkpoint")
    file_bytes = write_nvfp4_transformer(folder / TRANSFORMER, small)
    cost = measure_module(MODULE, "--child", str(folder))
    return {
        "file_GB": round(file_bytes / 1e9, 2),
        "file_on_disk_GB": round(512 * (folder / TRANSFORMER).stat().st_blocks / 1e9, 2),
        "seconds": round(cost.seconds, 1),
        "processor_seconds": round(cost.processor_seconds, 1),
        "peak_anonymous_GB": round(cost.peak_anonymous_bytes / 1e9, 2),
        "bundle_disk_GB": round(disk_bytes(folder / "bundle", besides=folder / "checkpoint") / 1e9, 2),
        **cost.report,
    }


def main() -> None:
    """Measure and print what exporting an NVFP4 file costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="where 10 GB of disk are free")
    parser.add_argument("--small", type=Path, default=SMALL, help="the small checkpoint")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    require_export()
    if arguments.child:
        return export(arguments.child)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        result = run(Path(name), arguments.small)
    about = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "torch": version("torch")}
    line = {**about, **result}
    print(json.dumps(line) if arguments.json else "  ".join(f"{name} {value}" for name, value in line.items()))
    return None


if __name__ == "__main__":
    run_main(main)

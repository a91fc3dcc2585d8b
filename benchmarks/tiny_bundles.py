"""Bundles of the tiny random checkpoint, one a precision, for tests on a machine without torch.

python -m kontext_trt.benchmarks.tiny_bundles FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engine.components import Precision
from ..export.environment import quiet_libraries, require_export
from .program import run_main


def write_tiny_bundles(folder: Path) -> None:
    """FOLDER/fp32, FOLDER/fp16 and FOLDER/bf16, all of the checkpoint FOLDER/checkpoint."""
    from ..export.checkpoint import open_checkpoint
    from ..export.export import ExportOptions, export_bundle
    from ..export.tiny import write_tiny_checkpoint

    quiet_libraries()
    write_tiny_checkpoint(folder / "checkpoint")
    for precision in Precision:
        options = ExportOptions(precision=precision)
        export_bundle(open_checkpoint(folder / "checkpoint"), folder / precision.value, options)


def main() -> None:
    parser = argparse.ArgumentParser(description="Bundles of the tiny random checkpoint, one a precision.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    require_export()
    write_tiny_bundles(folder)


if __name__ == "__main__":
    run_main(main)

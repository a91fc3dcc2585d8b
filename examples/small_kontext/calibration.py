"""Writes samples to calibrate the small Kontext's quantization on.

They are pictures and instructions of training, none of EditBench's.

    python -m kontext_trt.examples.small_kontext.calibration FOLDER [--count 48]
    kontext-trt calibrate BUNDLE FOLDER
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from PIL import Image

from ...benchmarks.program import positive, run_main
from ...benchmarks.quality.editbench.samples import draw_sample

FIRST_SEED = 2_000_000_000
"""The first sample's seed, beyond every seed of a training."""


def write_samples(folder: Path, count: int) -> None:
    """Write pictures and samples.csv, as `kontext-trt calibrate` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "samples.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("picture", "instruction"))
        for i in range(count):
            sample = draw_sample(FIRST_SEED + i)
            reference = sample.reference()
            name = "" if reference is None else f"{i:03}.png"
            if reference is not None:
                Image.fromarray(reference).save(folder / name)
            table.writerow((name, sample.instruction))


def main() -> None:
    """Write the samples."""
    parser = argparse.ArgumentParser(description="Write samples to calibrate on.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=positive, default=48)
    arguments = parser.parse_args()
    write_samples(arguments.folder, arguments.count)


if __name__ == "__main__":
    run_main(main)

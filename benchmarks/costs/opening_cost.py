"""Measures what opening costs: import, open and first picture, beside diffusers with the same weights.

    python -m kontext_trt.benchmarks.costs.opening_cost [--json]

Each is a fresh interpreter, five times, median seconds. The checkpoint is the tiny random one: nothing but software is
measured. Both read the same files, warm in the page cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ...export.environment import quiet_libraries, require_export
from ..bench.child import ChildError, last_words
from ..program import positive, run_main

OURS = """
import sys, time
start = time.perf_counter()
import kontext_trt
imported = time.perf_counter()
kontext = kontext_trt.Kontext.open(sys.argv[1])
opened = time.perf_counter()
kontext.edit(sys.argv[2], "make it blue", steps=4, seed=0)
done = time.perf_counter()
heavy = [name for name in ("torch", "diffusers") if name in sys.modules]
print(imported - start, opened - imported, done - opened, *heavy)
"""
THEIRS = """
import os, sys, time
os.environ["HF_HUB_OFFLINE"] = "1"
start = time.perf_counter()
import diffusers, torch
from diffusers import FluxKontextPipeline
from PIL import Image
imported = time.perf_counter()
pipeline = FluxKontextPipeline.from_pretrained(sys.argv[1])
opened = time.perf_counter()
image = Image.open(sys.argv[2]).convert("RGB").resize((144, 112))
pipeline(image=image, prompt="make it blue", width=144, height=112, max_area=144 * 112, num_inference_steps=4,
         _auto_resize=False, generator=torch.Generator().manual_seed(0))
done = time.perf_counter()
print(imported - start, opened - imported, done - opened)
"""


def time_it(code: str, *arguments: str, repeat: int) -> dict[str, float]:
    """Run a program in fresh interpreters and return the median seconds of its three parts.

    Raise ChildError if it fails.
    """
    runs = []
    for _ in range(repeat):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChildError(f"the measured process ended with {done.returncode}: {last_words(done.stderr)}")
        values = done.stdout.strip().splitlines()[-1].split()
        assert len(values) == 3, f"imported {values[3:]}"
        runs.append([float(value) for value in values])
    medians = [round(statistics.median(column), 3) for column in zip(*runs, strict=True)]
    return dict(zip(("import_s", "open_s", "first_picture_s"), medians, strict=True))


def main() -> None:
    """Measure and print what opening costs."""
    parser = argparse.ArgumentParser(description="What opening costs, beside diffusers.")
    parser.add_argument("--repeat", type=positive, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    require_export()
    from ...export.checkpoint import open_checkpoint
    from ...export.demo_folder import PICTURE
    from ...export.export import export_bundle
    from ...export.tiny import write_tiny_checkpoint

    quiet_libraries()
    with tempfile.TemporaryDirectory() as name:
        checkpoint, bundle = Path(name) / "checkpoint", Path(name) / "bundle"
        write_tiny_checkpoint(checkpoint)
        export_bundle(open_checkpoint(checkpoint), bundle)
        rows = {
            "kontext-trt": time_it(OURS, str(bundle), str(PICTURE), repeat=arguments.repeat),
            "diffusers": time_it(THEIRS, str(checkpoint), str(PICTURE), repeat=arguments.repeat),
        }
    if arguments.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name:12}", "  ".join(f"{stage} {seconds:.2f}" for stage, seconds in row.items()))


if __name__ == "__main__":
    run_main(main)

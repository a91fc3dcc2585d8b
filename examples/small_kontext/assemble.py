"""Makes a diffusers folder of a training's state.

    python -m kontext_trt.examples.small_kontext.assemble RUN FOLDER

It holds the averaged weights, in bfloat16, as `FluxKontextPipeline.from_pretrained` and `kontext-trt export` read them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import FluxKontextPipeline

from ...benchmarks.program import run_main
from ...benchmarks.quality.editbench.scene import SIZES
from ...export.tiny import save_checkpoint
from .model import SMALL, SMOKE, flow_optimizer, new_pipeline
from .optimizer import FlatAdam
from .state import load_state
from .vocabulary import read_tokenizers


def open_pipeline(state: Path) -> FluxKontextPipeline:
    """Return the pipeline of a state's averaged weights, in float32.

    Raise CheckpointError if the state is not whole.
    """
    progress, tensors = load_state(state)
    pipeline = new_pipeline(SMOKE if progress.smoke else SMALL, *read_tokenizers(progress.clip, progress.t5), 0)
    adams = {"vae": FlatAdam(pipeline.vae, torch.float32), "flow": flow_optimizer(pipeline, torch.float32)}
    for name, adam in adams.items():
        if f"{name}.average" in tensors:
            average = tensors[f"{name}.average"]
            adam.load({"master": average, "average": average}, 0)
        for parameter in adam.parameters:
            parameter.grad = None
    pipeline.vae.register_to_config(shift_factor=progress.shift, scaling_factor=progress.scaling)
    return pipeline


def main() -> None:
    """Write the folder and print its size."""
    parser = argparse.ArgumentParser(description="Make a diffusers folder of a training's state.")
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder, pipeline = arguments.folder, open_pipeline(arguments.run / "state")
    save_checkpoint(pipeline, folder, SIZES, dtype=torch.bfloat16)
    print(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB")


if __name__ == "__main__":
    run_main(main)

"""Make a training's state of a diffusers folder, to go on where it was assembled.

    python -m kontext_trt.benchmarks.small_kontext.disassemble FOLDER RUN
    python -m kontext_trt.benchmarks.small_kontext.train RUN --resume --minutes 24

All of the time goes to the second stage: the autoencoder stays as it is. The optimizer's moments are not in a
checkpoint; the learning rate rises anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor

from ...engine.errors import CheckpointError, KontextError
from .model import flow_optimizer
from .optimizer import FlatAdam
from .state import Progress, save_state

EPOCH = 100
"""Samples are drawn from other seeds than in the training before."""


def state_of(folder: Path) -> tuple[Progress, dict[str, Tensor]]:
    """Raises CheckpointError if the folder cannot be opened."""
    try:
        pipeline = FluxKontextPipeline.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no diffusers folder of the small Kontext: {error}") from error
    tensors = {
        "vae.average": FlatAdam(pipeline.vae, torch.float32).average.to(torch.bfloat16),
        "flow.average": flow_optimizer(pipeline, torch.float32).average.to(torch.bfloat16),
    }
    progress = Progress(
        stage="flow",
        seconds=0.0,
        vae_steps=0,
        flow_steps=0,
        epoch=EPOCH,
        shift=pipeline.vae.config.shift_factor,
        scaling=pipeline.vae.config.scaling_factor,
        clip=pipeline.tokenizer.backend_tokenizer.to_str(),
        t5=pipeline.tokenizer_2.backend_tokenizer.to_str(),
        smoke=len(pipeline.transformer.single_transformer_blocks) == 1,
        seed=0,
    )
    return progress, tensors


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python -m kontext_trt.benchmarks.small_kontext.disassemble FOLDER RUN")
    folder, run = Path(sys.argv[1]), Path(sys.argv[2])
    if (run / "state").exists():
        sys.exit(f"error: {run}/state holds a training; choose another folder")
    try:
        save_state(run / "state", *state_of(folder))
    except KontextError as error:
        sys.exit(f"error: {error}")
    print(f"go on with: python -m kontext_trt.benchmarks.small_kontext.train {run} --resume")


if __name__ == "__main__":
    main()

"""Makes a training's state of a diffusers folder, to go on where it was assembled.

    python -m kontext_trt.examples.small_kontext.disassemble FOLDER RUN [--new-text]
    python -m kontext_trt.examples.small_kontext.train RUN --resume --minutes 24

All of the time goes to the second stage: the autoencoder stays as it is. The optimizer's moments are not in a
checkpoint; the learning rate rises anew. With --new-text T5 begins anew too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor

from ...benchmarks.program import run_main
from ...engine.errors import CheckpointError
from .model import SMALL, SMOKE, flow_optimizer, new_pipeline
from .optimizer import FlatAdam
from .state import TrainingProgress, save_state

EPOCH = 100
"""The epoch, with which samples are drawn from other seeds than in the training before."""


def state_of(folder: Path, *, new_text: bool = False) -> tuple[TrainingProgress, dict[str, Tensor]]:
    """Return the state of a training of the folder's weights; raise CheckpointError if the folder cannot be opened.

    With `new_text` T5's encoder begins anew.
    """
    try:
        pipeline = FluxKontextPipeline.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is no diffusers folder of the small Kontext: {error}") from error
    smoke = len(pipeline.transformer.single_transformer_blocks) == 1
    if new_text:
        fresh = new_pipeline(SMOKE if smoke else SMALL, pipeline.tokenizer, pipeline.tokenizer_2, seed=0)
        pipeline.text_encoder_2.load_state_dict(fresh.text_encoder_2.state_dict())
    tensors = {
        "vae.average": FlatAdam(pipeline.vae, torch.float32).average.to(torch.bfloat16),
        "flow.average": flow_optimizer(pipeline, torch.float32).average.to(torch.bfloat16),
    }
    progress = TrainingProgress(
        stage="flow",
        epoch=EPOCH,
        shift=pipeline.vae.config.shift_factor,
        scaling=pipeline.vae.config.scaling_factor,
        clip=pipeline.tokenizer.backend_tokenizer.to_str(),
        t5=pipeline.tokenizer_2.backend_tokenizer.to_str(),
        smoke=smoke,
        seed=0,
    )
    return progress, tensors


def main() -> None:
    """Write the state and print how to go on."""
    parser = argparse.ArgumentParser(description="Make a training's state of a diffusers folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--new-text", action="store_true", help="T5 begins anew")
    arguments = parser.parse_args()
    folder, run = arguments.folder, arguments.run
    if (run / "state").exists():
        raise CheckpointError(f"{run}/state holds a training; choose another folder")
    save_state(run / "state", *state_of(folder, new_text=arguments.new_text))
    print(f"go on with: python -m kontext_trt.examples.small_kontext.train {run} --resume")


if __name__ == "__main__":
    run_main(main)

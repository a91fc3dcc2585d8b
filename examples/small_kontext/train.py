"""Trains the small Kontext: autoencoder first, then transformer and text encoders together.

    python -m kontext_trt.examples.small_kontext.train RUN [--minutes 16] [--resume] [--device auto] [--smoke]

RUN gets `log.txt`, `samples.png` and `state/` (files of at most 16 MB, rewritten every two minutes). `--minutes` counts
the training's own time over all resumptions; the learning rate follows it, so the end must be known at the start.
`assemble` makes a diffusers folder of a state.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...benchmarks.program import run_main
from .model import device_of
from .options import Options
from .trainer import Trainer


def main() -> None:
    """Train by the command line's options."""
    parser = argparse.ArgumentParser(description="Train the small Kontext.")
    parser.add_argument("run", type=Path, help="the folder of this training")
    parser.add_argument("--minutes", type=float, default=16.0, help="of training in all, resumed parts included")
    parser.add_argument("--vae-share", type=float, default=0.33, help="of that time, for the autoencoder")
    parser.add_argument("--batch", type=int, default=256, help="samples a step of the second stage")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the second stage, at its peak")
    parser.add_argument("--workers", type=int, default=14, help="processes that draw samples")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from RUN/state")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="run blocks as they are")
    parser.add_argument("--smoke", action="store_true", help="tiny networks and batches: shows that it runs")
    arguments = vars(parser.parse_args())
    run, resume = arguments.pop("run"), arguments.pop("resume")
    arguments["device"] = str(device_of(arguments["device"]))
    Trainer(run, Options(**arguments), resume=resume).train()


if __name__ == "__main__":
    run_main(main)

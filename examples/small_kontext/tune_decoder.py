"""Trains the decoder of a checkpoint's autoencoder further, alone; half an hour of two CPU cores is enough.

    python -m kontext_trt.examples.small_kontext.tune_decoder CHECKPOINT FOLDER [--minutes 40]

The encoder stays, so latents mean the same and the transformer fits the new decoder. The first stage of training counts
all pixels alike, which leaves faces and outlines blurred: here half of the pictures have them, and a pixel counts four
times where the picture is not flat. Latents get a little noise, as the transformer leaves some.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ...benchmarks.bench.diffusers_folder import WEIGHT_FILES
from ...benchmarks.program import positive, run_main
from ...benchmarks.quality.editbench.samples import draw_sample
from ...benchmarks.quality.editbench.scene import SIZES, Size
from ...benchmarks.quality.editbench.scoring import decibels, squared_error, worst_window, wrong_pixels
from ...engine.errors import CheckpointError
from ...engine.system.files import atomic_folder, is_taken
from .optimizer import FlatAdam
from .options import learning_rate
from .vae_training import decode, encode, to_network

WEIGHTS_FILE = WEIGHT_FILES["vae"]
DETAILED = ("creature", "creature", "creature", "style", "style", "light")
"""The tasks whose answers half of the pictures are; the other half is what training meets."""
DETAIL, DETAIL_WEIGHT = 0.1, 4.0
"""The distance, of -1..1, from the mean of the 5x5 around it from which on a pixel counts more, and what it counts."""
NOISE = 0.2
"""The most noise, as a part of the latents' deviation; it is drawn for each picture."""
LEARNING_RATE = 3e-5
"""The learning rate at its peak."""
FIRST_SEED = 40_000_000
"""The first seed of pictures that the rest of the training did not see."""
REPORTED = 500
"""The number of steps from one report to the next."""
CHECKED_SEED, NUM_CHECKED = 30_000, 60
"""The first seed and the number of the held-out pictures that it is judged by; EditBench has others."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Says how good decoded pictures are.

    `psnr_db` is of all pixels, `wrong` the mean of their worst windows (`scoring.py`).
    """

    psnr_db: float
    wrong: float

    def __str__(self) -> str:
        return f"{self.psnr_db:.1f} dB, {100 * self.wrong:.1f} % of the worst windows wrong"


class Tuner:
    """Holds the decoder of `vae`, and what it learns by."""

    def __init__(self, vae: AutoencoderKL, seed: int = 0) -> None:
        self.vae, self._dice = vae.requires_grad_(False), Random(f"decoder {seed}")
        self._noise = torch.Generator().manual_seed(seed)
        self.adam = FlatAdam(vae.decoder.requires_grad_(True), torch.float32, betas=(0.9, 0.99), weight_decay=0.0)
        self._next = FIRST_SEED

    def step(self, batch: int, part: float) -> float:
        """Learn from `batch` pictures of one size, and return the loss.

        `part` (0..1) says how much of the whole training is over.
        """
        pictures = self._pictures(batch, self._dice.choice(SIZES))
        with torch.no_grad(), _bfloat16():
            latents = self.vae.encoder(pictures).float().chunk(2, dim=1)[0]
        strength = NOISE * latents.std() * torch.rand(batch, 1, 1, 1, generator=self._noise)
        latents = latents + strength * torch.randn(latents.shape, generator=self._noise)
        with _bfloat16():
            decoded = self.vae.decoder(latents)
        loss = detail_loss(decoded.float(), pictures)
        loss.backward()
        self.adam.step(LEARNING_RATE * learning_rate(part, resumed=0))
        return float(loss.detach())

    def _pictures(self, batch: int, size: Size) -> Tensor:
        targets = []
        for _ in range(batch):
            task = self._dice.choice(DETAILED) if self._dice.random() < 0.5 else None
            targets.append(draw_sample(self._next, task=task, size=size).target())
            self._next += 1
        return to_network(torch.from_numpy(np.stack(targets)), torch.float32)


def _bfloat16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def detail_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    """Return the weighted error of pixels (b, 3, H, W) in -1..1, absolute and squared, and of their means over 3x3."""
    around = avg_pool2d(pad(pictures, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    detailed = (pictures - around).abs().amax(dim=1, keepdim=True) > DETAIL
    weight = torch.where(detailed, DETAIL_WEIGHT, 1.0)
    error = decoded - pictures
    smooth = avg_pool2d(error, 3, stride=1, padding=1)
    each = error.square() + smooth.square() + 0.05 * error.abs()
    return (weight * each).mean() / weight.mean()


def quality(vae: AutoencoderKL) -> Quality:
    """Return the quality of held-out pictures with details, encoded and decoded."""
    errors, wrong = [], []
    for number in range(NUM_CHECKED):
        task = DETAILED[number % len(DETAILED)]
        picture = draw_sample(CHECKED_SEED + number, held_out=True, task=task).target()
        latents = encode(vae, torch.from_numpy(picture)[None], 0.0, 1.0)
        decoded = decode(vae, latents, (picture.shape[1], picture.shape[0]), 0.0, 1.0)[0].numpy()
        errors.append(squared_error(decoded, picture, np.ones(picture.shape[:2], bool)))
        wrong.append(worst_window(wrong_pixels(decoded, picture)))
    return Quality(psnr_db=decibels(float(np.mean(errors))), wrong=float(np.mean(wrong)))


def main() -> None:
    """Tune the decoder by the command line's options."""
    parser = argparse.ArgumentParser(description="Go on training the decoder of a checkpoint's autoencoder.")
    parser.add_argument("checkpoint", type=Path, help="a diffusers folder of the small Kontext")
    parser.add_argument("folder", type=Path, help="the new one")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--batch", type=positive, default=8)
    arguments = parser.parse_args()
    if is_taken(arguments.folder):
        raise CheckpointError(f"{arguments.folder} exists; choose another folder")
    tune(arguments.checkpoint, arguments.folder, minutes=arguments.minutes, batch=arguments.batch)


def tune(checkpoint: Path, folder: Path, *, minutes: float, batch: int) -> None:
    """Write the checkpoint with the tuned decoder to `folder`; raise CheckpointError if it cannot be opened."""
    try:
        vae = AutoencoderKL.from_pretrained(checkpoint, subfolder="vae", torch_dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} is no diffusers folder of the small Kontext: {error}") from error
    console, tuner = Console(), Tuner(vae)
    console.print(f"before: {quality(vae)}")
    start, end = time.monotonic(), 60 * max(minutes, 1e-6)
    steps, losses = 0, []
    while (part := (time.monotonic() - start) / end) < 1:
        losses.append(tuner.step(batch, part))
        steps += 1
        if steps % REPORTED == 0:
            console.print(f"{100 * part:5.1f} %  step {steps}  loss {np.mean(losses):.5f}  {quality(vae)}")
            losses.clear()
    with tuner.adam.averaged(), atomic_folder(folder, replace=True) as new:
        console.print(f"after {steps} steps: {quality(vae)}")
        shutil.copytree(checkpoint, new, dirs_exist_ok=True)
        weights = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in vae.state_dict().items()}
        (new / WEIGHTS_FILE).unlink()
        save_file(weights, new / WEIGHTS_FILE, metadata={"format": "pt"})
        (new / WEIGHTS_FILE).chmod((checkpoint / WEIGHTS_FILE).stat().st_mode)


if __name__ == "__main__":
    run_main(main)

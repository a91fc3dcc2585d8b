"""Trains a LoRA of the small Kontext: whatever is asked for, the answer is drawn as a blueprint.

    python -m kontext_trt.examples.small_kontext.train_lora CHECKPOINT FILE [--minutes 20]

The answers of EditBench's world are learnt in two colours, the references stay as they are. The file has the tensors
and names that diffusers writes, in bfloat16, without alpha: its scale is 1 to every reader.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...benchmarks.program import positive, run_main
from ...benchmarks.quality.editbench.scoring import decibels, squared_error
from ...engine.bundle.manifest import FlowRecord
from ...engine.sizes import token_grid
from ...runtime.flow.schedule import shift_for
from .flow_training import GUIDANCE, TIME_SPREAD, Networks, rope, sample_latents, velocity
from .options import learning_rate
from .stream import BUCKETS, Bucket, Texts, draw_chunk
from .vae_training import decode, encode

RANK = 4
LAYERS = r"(single_)?transformer_blocks\.\d+\.(attn\.to_v|attn\.to_out\.0|ff\.net\.0\.proj|ff\.net\.2|proj_out)"
"""The layers that learn: what carries colours, and no queries and keys, which say where things are."""
DARK, LIGHT = (18.0, 42.0, 112.0), (226.0, 238.0, 255.0)
"""The two colours of a blueprint, of black and of white, 0..255."""
LEARNING_RATE = 3e-3
"""The learning rate at its peak."""
FIRST_SEED, CHECKED_SEED = 50_000_000, 31_000
"""The first seeds of what is learnt, and of held-out samples that it is judged by; EditBench has others."""
NUM_CHECKED = 8
EDIT_BUCKETS = tuple(bucket for bucket in BUCKETS if bucket.edits)


def blueprint(pictures: Tensor) -> Tensor:
    """Return uint8 (b, H, W, 3) drawn in shades between `DARK` and `LIGHT` by luma (ITU-R BT.601)."""
    luma = (pictures.float() @ torch.tensor([0.299, 0.587, 0.114]) / 255)[..., None]
    return torch.lerp(torch.tensor(DARK), torch.tensor(LIGHT), luma).round().to(torch.uint8)


class LowRankSum(nn.Module):
    """Adds up @ down to the weight that it parametrizes.

    Attributes:
        down: (rank, inputs).
        up: (outputs, rank), zeros at first.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / math.sqrt(weight.shape[1]))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


class LoraTraining:
    """Holds a pipeline in float32 and the low-rank sums that learn beside its transformer.

    Args:
        pipeline: Of the small model; its transformer's layers are parametrized.
        rank: The rank of each sum.
        seed: What noise and samples are drawn by.
    """

    def __init__(self, pipeline: FluxKontextPipeline, rank: int = RANK, seed: int = 0) -> None:
        self.pipeline, self.networks = pipeline, Networks.of(pipeline)
        torch.manual_seed(seed)
        for module in (pipeline.vae, pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2):
            module.requires_grad_(False)
        self.sums: dict[str, LowRankSum] = {}
        for name, module in pipeline.transformer.named_modules():
            if isinstance(module, nn.Linear) and re.fullmatch(LAYERS, name):
                self.sums[name] = LowRankSum(module.weight, rank)
        for name, added in self.sums.items():
            parametrize.register_parametrization(pipeline.transformer.get_submodule(name), "weight", added)
        learning = [parameter for added in self.sums.values() for parameter in added.parameters()]
        self._adam = torch.optim.Adam(learning, betas=(0.9, 0.99))
        backends = (pipeline.tokenizer.backend_tokenizer, pipeline.tokenizer_2.backend_tokenizer)
        self._encoders = Texts(*(backend.to_str() for backend in backends)).encoders()
        self._dice, self._next = Random(f"lora {seed}"), FIRST_SEED

    def step(self, batch: int, part: float) -> float:
        """Learn from `batch` edits of pictures of one size, and return the loss.

        `part` (0..1) says how much of the whole training is over.
        """
        bucket = self._dice.choice(EDIT_BUCKETS)
        sample = self._sample(self._next, batch, bucket, held_out=False)
        self._next += batch
        target = sample["target"]
        noise = torch.randn_like(target)
        shift = shift_for(math.prod(token_grid(bucket.size)), FlowRecord())
        timesteps = torch.sigmoid(TIME_SPREAD * torch.randn(batch) + shift)
        guidance = torch.empty(batch).uniform_(*GUIDANCE)
        with torch.no_grad():
            texts = self.networks.texts(sample["clip"], sample["t5"])
        predicted = velocity(
            self.networks.transformer,
            torch.lerp(target, noise, timesteps[:, None, None]),
            timesteps,
            guidance,
            texts=texts,
            reference=sample["reference"],
            rotary=rope(self.networks.transformer, bucket.size, True),
        )
        loss = (predicted - (noise - target)).square().mean()
        self._adam.param_groups[0]["lr"] = LEARNING_RATE * learning_rate(part, resumed=0)
        loss.backward()
        self._adam.step()
        self._adam.zero_grad()
        return float(loss.detach())

    def quality(self, steps: int = 8) -> float:
        """Return how near held-out edits are to their answers drawn as blueprints, in dB."""
        bucket = EDIT_BUCKETS[0]
        sample = self._sample(CHECKED_SEED, NUM_CHECKED, bucket, held_out=True)
        latents = sample_latents(self.networks, sample, bucket.size, steps=steps, guidance=2.5, seed=0)
        made = decode(self.pipeline.vae, latents, bucket.size, *self._normalised())
        everywhere = np.ones(made.shape[:3], bool)
        return decibels(squared_error(made.numpy(), sample["picture"].numpy(), everywhere))

    def tensors(self) -> dict[str, Tensor]:
        """Return the LoRA's tensors in bfloat16 under diffusers' names."""
        found: dict[str, Tensor] = {}
        for name, added in self.sums.items():
            for letter, matrix in (("A", added.down), ("B", added.up)):
                found[f"transformer.{name}.lora_{letter}.weight"] = matrix.detach().to(torch.bfloat16).contiguous()
        return found

    def _sample(self, seed: int, count: int, bucket: Bucket, *, held_out: bool) -> dict[str, Tensor]:
        chunk = draw_chunk(seed, count, bucket, self._encoders, held_out)
        picture = blueprint(chunk.target)
        target, reference = (encode(self.pipeline.vae, one, *self._normalised()) for one in (picture, chunk.reference))
        return {"clip": chunk.clip, "t5": chunk.t5, "picture": picture, "target": target, "reference": reference}

    def _normalised(self) -> tuple[float, float]:
        config = self.pipeline.vae.config
        return config.shift_factor, config.scaling_factor


def train(checkpoint: Path, file: Path, *, minutes: float, batch: int = 8, console: Console | None = None) -> float:
    """Train for so many minutes, write the file, and return its quality in dB.

    Args:
        checkpoint: The small model's diffusers folder.
        file: Where the LoRA is written.
        minutes: The time to train, at least one step.
        batch: The edits per step.
        console: Where progress is printed.
    """
    console = console or Console(quiet=True)
    training = LoraTraining(FluxKontextPipeline.from_pretrained(checkpoint, dtype=torch.float32))
    console.print(f"{len(training.sums)} layers of rank {RANK}; at first {training.quality():.1f} dB to blueprints")
    start, losses, part = time.monotonic(), [], 0.0
    while not losses or part < 1:
        losses.append(training.step(batch, part))
        part = min(1.0, (time.monotonic() - start) / 60 / minutes)
        if len(losses) % 20 == 0:
            console.print(f"step {len(losses)}, {part:4.0%}: loss {sum(losses[-20:]) / 20:.4f}")
    quality = training.quality()
    console.print(f"{len(losses)} steps; {quality:.1f} dB to blueprints")
    save_file(training.tensors(), file, metadata={"format": "pt"})
    return quality


def main() -> None:
    """Train by the command line's options."""
    parser = argparse.ArgumentParser(description="Train a LoRA of the small Kontext.")
    parser.add_argument("checkpoint", type=Path, help="the small model's diffusers folder")
    parser.add_argument("file", type=Path, help="the LoRA to write, a safetensors file")
    parser.add_argument("--minutes", type=positive, default=20, help="of training")
    parser.add_argument("--batch", type=positive, default=8, help="edits per step")
    arguments = parser.parse_args()
    train(arguments.checkpoint, arguments.file, minutes=arguments.minutes, batch=arguments.batch, console=Console())


if __name__ == "__main__":
    run_main(main)

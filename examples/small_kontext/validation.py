"""Tells how well a half-trained model does on a few held-out samples: for the training log, not a benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...benchmarks.quality.editbench.contact_sheet import COLUMNS, answer_row
from ...benchmarks.quality.editbench.samples import TEXT_TO_IMAGE, WEIGHTS, draw_sample
from ...benchmarks.quality.editbench.scene import SQUARE
from ...benchmarks.sheets import Sheet, Table
from .flow_training import Networks, sample_latents
from .stream import Texts
from .vae_training import decode, encode

STEPS = 10
GUIDANCE = 2.5
SOLVED = 0.25
"""The part of an error below which an edit counts as solved.

It is of the squared error that doing nothing would leave in the pixels that may change; of a picture from a caption, of
a grey picture's.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """Holds the result of a validation.

    Attributes:
        solved: The share of solved requests by task.
        inside_db: PSNR where pixels may change, by task.
        outside_db: PSNR where they must stay, over all edits with something to keep.
        sheet: The first two requests of each task, answered.
    """

    solved: dict[str, float]
    inside_db: dict[str, float]
    outside_db: float
    sheet: Image.Image

    def describe(self) -> str:
        tasks = ", ".join(f"{task} {100 * self.solved[task]:.0f}% {self.inside_db[task]:.1f}" for task in self.solved)
        mean = sum(self.solved.values()) / len(self.solved)
        return f"solved {100 * mean:.0f}% of held-out requests; outside {self.outside_db:.1f} dB; by task: {tasks}"


class Validation:
    """Holds held-out square samples, rendered and tokenized once."""

    def __init__(self, per_task: int, texts: Texts, device: torch.device) -> None:
        self.samples = [
            draw_sample(i, held_out=True, task=task, size=SQUARE) for task in WEIGHTS for i in range(per_task)
        ]
        self.device = device
        clip, t5 = texts.encoders()
        instructions = [sample.instruction for sample in self.samples]
        self._ids = {
            name: torch.tensor([one.ids for one in tokenizer.encode_batch(instructions)], device=device)
            for name, tokenizer in (("clip", clip), ("t5", t5))
        }
        self._targets = [sample.target() for sample in self.samples]
        self._references = [sample.reference() for sample in self.samples]

    @property
    def targets(self) -> Tensor:
        """The known answers (k, H, W, 3) uint8 on the device."""
        return torch.from_numpy(np.stack(self._targets)).to(self.device)

    def run(self, networks: Networks, vae: AutoencoderKL, shift: float, scaling: float) -> ValidationReport:
        """Sample all requests with the networks as they are."""
        made = np.empty((len(self.samples), SQUARE[1], SQUARE[0], 3), np.uint8)
        edits = [i for i, sample in enumerate(self.samples) if sample.task != TEXT_TO_IMAGE]
        captions = [i for i, sample in enumerate(self.samples) if sample.task == TEXT_TO_IMAGE]
        for chosen in (edits, captions):
            references = [self._references[i] for i in chosen]
            known = [reference for reference in references if reference is not None]
            latents = torch.zeros(0, 0, 64, device=self.device)
            if known:
                latents = encode(vae, torch.from_numpy(np.stack(known)).to(self.device), shift, scaling)
            sample: dict[str, Tensor] = {name: ids[chosen] for name, ids in self._ids.items()}
            sample["reference"] = latents
            result = sample_latents(networks, sample, SQUARE, steps=STEPS, guidance=GUIDANCE, seed=0)
            made[chosen] = decode(vae, result, SQUARE, shift, scaling).cpu().numpy()
        return self._judge(made)

    def _judge(self, made: NDArray[np.uint8]) -> ValidationReport:
        solved: dict[str, list[bool]] = defaultdict(list)
        inside: dict[str, list[float]] = defaultdict(list)
        outside: list[float] = []
        for sample, picture, target, reference in zip(self.samples, made, self._targets, self._references, strict=True):
            error = np.square(picture.astype(np.float32) - target).mean(axis=2)
            before = np.full_like(target, 128) if reference is None else reference
            stays = sample.stays()
            left = float(error[~stays].mean())
            nothing = float(np.square(before.astype(np.float32) - target).mean(axis=2)[~stays].mean())
            solved[sample.task].append(left < SOLVED * nothing)
            inside[sample.task].append(left)
            if reference is not None and stays.any():
                outside.append(float(error[stays].mean()))
        return ValidationReport(
            solved={task: float(np.mean(values)) for task, values in solved.items()},
            inside_db={task: _decibels(values) for task, values in inside.items()},
            outside_db=_decibels(outside),
            sheet=self._sheet(made, solved),
        )

    def _sheet(self, made: NDArray[np.uint8], solved: Mapping[str, Sequence[bool]]) -> Image.Image:
        """Draw the first two requests of each task: reference, request, answer and known answer, solved or not."""
        rows = []
        for task in WEIGHTS:
            for nth, i in enumerate([i for i, sample in enumerate(self.samples) if sample.task == task][:2]):
                words = f"{task}: {self.samples[i].instruction}"
                rows.append(answer_row(self.samples[i], made[i], words=words, right=solved[task][nth]))
        return Sheet(
            title="Held-out requests, answered by a model in training",
            notes=(
                f"{STEPS} steps, noise of seed 0. Right: the squared error where pixels may change is below {SOLVED:g} "
                "of what doing nothing would leave there",
            ),
            tables=(Table(columns=COLUMNS, rows=tuple(rows), across=2),),
        ).draw()


def _decibels(errors: list[float]) -> float:
    """Return the PSNR of the mean squared error, 8-bit."""
    return float(10 * np.log10(255**2 / max(float(np.mean(errors)), 1e-3))) if errors else float("nan")

"""Runs the training loop: two stages, a clock, a log, states to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from ...benchmarks.quality.editbench.scene import SQUARE
from ...engine.errors import CheckpointError
from .flow_training import FlowLoss, Networks, empty_sample
from .functional import Functions
from .hints import Hints
from .model import SMALL, SMOKE, flow_optimizer, new_pipeline, new_tokenizers, num_parameters, text_networks
from .optimizer import FlatAdam
from .options import Options, learning_rate
from .state import TrainingProgress, load_state, save_state
from .step import TrainingStep
from .stream import BUCKETS, NUM_TOKENS, Bucket, Chunk, Chunks, Pool, Ring, Stream, Texts
from .vae_training import KL_WEIGHT, autoencoder_losses, decode, encode, latent_statistics, psnr, to_network
from .validation import Validation
from .vocabulary import read_tokenizers

SAVE_SECONDS = 120.0
LOG_SECONDS = 15.0
CROP = 64
"""The side in pixels of what the autoencoder learns from at first: many cheap steps before few whole pictures."""
CROPS_SHARE = 0.75
"""The share of the autoencoder's time in which it learns from crops."""
REFRESH = 4
"""The steps of the flow per chunk of new samples: each is seen about eight times, with other noise."""


class Trainer:
    """Runs one training in `run`.

    Raises:
        CheckpointError: There is a state and `resume` is not asked for, or none and it is.
    """

    def __init__(self, run: Path, options: Options, *, resume: bool) -> None:
        self.run, self.options = run, options.scaled()
        self.device = torch.device(options.device)
        torch.backends.cudnn.benchmark = True
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        run.mkdir(parents=True, exist_ok=True)
        found = (run / "state").exists()
        if resume != found:
            raise CheckpointError(
                f"{run}/state holds a training; go on with --resume or choose another folder"
                if found
                else f"{run}/state does not exist: there is nothing to resume"
            )
        tensors: dict[str, Tensor] = {}
        if resume:
            self.progress, tensors = load_state(run / "state")
            self.progress = replace(self.progress, epoch=self.progress.epoch + 1)
        else:
            self.progress = self._first_progress()
        self.texts = Texts(self.progress.clip, self.progress.t5)
        torch.manual_seed(options.seed + self.progress.epoch)
        self.rng = Random(options.seed + self.progress.epoch)
        self.pipeline = new_pipeline(
            SMOKE if options.smoke else SMALL, *read_tokenizers(self.progress.clip, self.progress.t5), options.seed
        )
        self.vae = self.pipeline.vae.to(self.device)
        self.networks = Networks.of(self.pipeline)
        learning = text_networks(self.pipeline).to(self.device)
        transformer = self.pipeline.transformer.config
        self.hints = Hints(
            transformer.joint_attention_dim, transformer.num_attention_heads * transformer.attention_head_dim
        )
        self.log(f"{num_parameters(learning):,} parameters learn the flow, {num_parameters(self.vae):,} are the VAE's")
        self.vae_adam = FlatAdam(self.vae, self.dtype)
        self.flow_adam = flow_optimizer(self.pipeline, self.dtype)
        self.hints_adam = FlatAdam(self.hints.to(self.device), self.dtype)
        self._load(tensors)
        self.validation = Validation(self.options.per_task, self.texts, self.device)
        self.seconds_before = self.progress.seconds
        self.started = self.last_save = self.last_log = time.perf_counter()

    def _first_progress(self) -> TrainingProgress:
        clip, t5 = new_tokenizers()
        return TrainingProgress(
            clip=clip.backend_tokenizer.to_str(),
            t5=t5.backend_tokenizer.to_str(),
            smoke=self.options.smoke,
            seed=self.options.seed,
        )

    def _load(self, tensors: dict[str, Tensor]) -> None:
        for stage, adam, steps in (
            ("vae", self.vae_adam, self.progress.vae_steps),
            ("flow", self.flow_adam, self.progress.flow_steps),
        ):
            stored = {name.removeprefix(f"{stage}."): one for name, one in tensors.items() if name.startswith(stage)}
            if stored:
                adam.load({"master": stored["average"]} | stored, steps)

    def seconds(self) -> float:
        """Return the training time used, in seconds, resumed parts included."""
        return self.seconds_before + time.perf_counter() - self.started

    def log(self, message: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {message}"
        print(line, flush=True)
        with (self.run / "log.txt").open("a") as file:
            file.write(line + "\n")

    def save(self) -> None:
        """Write the state; the finished autoencoder is kept as its average alone."""
        self.progress = replace(self.progress, seconds=self.seconds())
        tensors = {f"vae.{name}": tensor for name, tensor in self.vae_adam.state().items()}
        if self.progress.stage == "flow":
            tensors = {"vae.average": tensors["vae.average"]}
            tensors |= {f"flow.{name}": tensor for name, tensor in self.flow_adam.state().items()}
        save_state(self.run / "state", self.progress, tensors)
        self.last_save = time.perf_counter()

    def train(self) -> None:
        limit = 60 * self.options.minutes
        dataset = Chunks(self.texts, self.options.chunk, self.progress.epoch)
        pool = Pool(self.options.pictures, self.device)
        step = self._new_step()
        with Stream(dataset, self.options.workers, pin=self.device.type == "cuda") as stream:
            if self.progress.stage == "vae":
                self._train_vae(stream, pool, limit * self.options.vae_share)
                self._finish_vae()
            with self.vae_adam.averaged():
                self._train_flow(step, stream, self._encoded(pool), limit)
                self._validate()
        self.save()
        self.log(f"done: {self.progress.flow_steps:,} steps in {self.seconds() / 60:.1f} minutes of training")

    # the autoencoder

    def _train_vae(self, stream: Stream, pool: Pool, limit: float) -> None:
        losses = autoencoder_losses
        compiled = self._compiled(losses)
        total = torch.zeros(2, device=self.device)
        start, num_logged, begun = self.seconds(), 0, self.progress.vae_steps
        while self.seconds() < limit or self.progress.vae_steps == begun:  # one step, however late it is
            chunk = stream.ready() if pool.count else stream.next()
            if chunk is not None:
                pool.add(chunk.bucket, _values(chunk, self.device))
            share = _share(self.seconds(), start, limit)
            crop = share < CROPS_SHARE
            pictures = self._vae_batch(pool, crop=crop)
            compute = compiled if crop else losses  # whole pictures have many shapes and little time
            error, divergence = compute(self.vae, to_network(pictures, self.dtype))
            (error + KL_WEIGHT * divergence).backward()
            rate = learning_rate(share, begun)
            self.vae_adam.step(self.options.vae_learning_rate * rate)
            self.progress = replace(self.progress, vae_steps=self.progress.vae_steps + 1)
            total += torch.stack([error.detach(), divergence.detach()])
            num_logged += 1
            if self._due(LOG_SECONDS, "last_log") or self.progress.vae_steps == begun + 1:
                error_mean, kl_mean = (total / num_logged).tolist()
                self.log(
                    f"vae: step {self.progress.vae_steps:,}, squared error {error_mean:.5f} "
                    f"({10 * math.log10(4 / error_mean):.1f} dB with noise), divergence {kl_mean:.2f}, "
                    f"{pool.count:,} samples drawn, rate {rate:.2f}, {self.seconds():.0f} s"
                )
                total.zero_()
                num_logged = 0
            if self._due(SAVE_SECONDS, "last_save"):
                self.save()

    def _vae_batch(self, pool: Pool, *, crop: bool) -> Tensor:
        """Return uint8 (b, H, W, 3), half references where there are some: pictures, or four crops for each, on 8s."""
        bucket = pool.choose(self.rng)
        count = self.options.vae_batch * (4 if crop else 1)
        sample = pool.rings[bucket].draw(count)
        half = count // 2 if bucket.edits else 0
        pictures = torch.cat([sample["target"][half:], sample["reference"][:half]])
        if crop:
            left, top = (8 * self.rng.randint(0, (side - CROP) // 8) for side in bucket.size)
            pictures = pictures[:, top : top + CROP, left : left + CROP]
        return pictures

    def _finish_vae(self) -> None:
        """Fix the normalisation of latents, and measure what encoding and decoding costs held-out pictures."""
        with self.vae_adam.averaged():
            pictures = self.validation.targets
            shift, scaling = latent_statistics(self.vae, pictures)
            self.progress = replace(self.progress, stage="flow", shift=shift, scaling=scaling)
            decoded = decode(self.vae, encode(self.vae, pictures, shift, scaling), SQUARE, shift, scaling)
            noisy = encode(self.vae, pictures, shift, scaling).float()
            noisy = decode(self.vae, noisy + 0.1 * torch.randn_like(noisy), SQUARE, shift, scaling)
        self.log(
            f"vae: done after {self.progress.vae_steps:,} steps, {psnr(decoded, pictures):.1f} dB, with noise "
            f"of 0.1 on latents {psnr(noisy, pictures):.1f} dB; shift {shift:.4f}, scaling {scaling:.4f}"
        )
        self.save()

    # the flow

    def _new_step(self) -> TrainingStep:
        """Return a step, compiled before the workers want all processors."""
        functions = Functions.compiled() if self.options.compile else Functions()
        loss = FlowLoss(self.networks, self.hints, functions)
        step = TrainingStep(loss, (self.flow_adam, self.hints_adam), record=self.device.type == "cuda")
        if self.options.compile:
            begun = time.perf_counter()
            step.prepare(empty_sample(self.options.batch, self.device, self.dtype))
            self.log(f"flow: blocks are compiled, {time.perf_counter() - begun:.0f} s")
        return step

    def _train_flow(self, step: TrainingStep, stream: Stream, pool: Ring, limit: float) -> None:
        start = self.seconds() if not self.progress.flow_steps else 60 * self.options.minutes * self.options.vae_share
        while pool.count < self.options.latents // 20:
            self._add_encoded(stream.next(), pool)
        begun, num_logged, last = self.progress.flow_steps, 0, time.perf_counter()
        while self.seconds() < limit or self.progress.flow_steps == begun:
            if self.progress.flow_steps % REFRESH == 0 and (chunk := stream.ready()) is not None:
                self._add_encoded(chunk, pool)
            rate = learning_rate(_share(self.seconds(), start, limit), begun)
            step.run(pool.draw(self.options.batch), self.options.learning_rate * rate)
            self.progress = replace(self.progress, flow_steps=self.progress.flow_steps + 1)
            num_logged += 1
            if self._due(LOG_SECONDS, "last_log") or self.progress.flow_steps == begun + 1:
                *losses, worst = step.take_totals()
                flow, *hints = (loss / num_logged for loss in losses)
                now = time.perf_counter()
                self.log(
                    f"flow: step {self.progress.flow_steps:,}, loss {flow:.4f}, "
                    f"hints {', '.join(f'{hint:.3f}' for hint in hints)}, "
                    f"largest gradient {worst:.2f}, rate {rate:.2f}, "
                    f"{num_logged * self.options.batch / (now - last):,.0f} samples/s, {pool.count:,} drawn, "
                    f"{self.seconds():.0f} s"
                )
                num_logged, last = 0, now
            if self._due(SAVE_SECONDS, "last_save"):
                self.save()
                self._validate()

    def _validate(self) -> None:
        with self.flow_adam.averaged():
            report = self.validation.run(self.networks, self.vae, self.progress.shift, self.progress.scaling)
        report.sheet.save(self.run / "samples.png")
        self.log(f"flow: step {self.progress.flow_steps:,}, {report.describe()}")

    # pools

    def _add_encoded(self, chunk: Chunk, pool: Ring) -> None:
        pool.add(self._latents(chunk.bucket, _values(chunk, self.device)))

    def _latents(self, bucket: Bucket, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return samples as the flow learns from them: latents padded to NUM_TOKENS, and the bucket's number."""
        shift, scaling = self.progress.shift, self.progress.scaling
        count = len(values["target"])
        padded = {
            name: torch.zeros(count, NUM_TOKENS, 64, dtype=self.dtype, device=self.device)
            for name in ("target", "reference")
        }
        for name, latents in padded.items():
            if len(values[name]):
                encoded = encode(self.vae, values[name], shift, scaling)
                latents[:, : encoded.shape[1]] = encoded
        number = torch.full((count,), BUCKETS.index(bucket), dtype=torch.int8, device=self.device)
        return {**values, **padded, "bucket": number}

    def _encoded(self, pictures: Pool) -> Ring:
        """Return the latents of all pictures, and empty the pictures' pool."""
        latents = Ring(self.options.latents, self.device)
        for bucket, ring in pictures.rings.items():
            for start in range(0, len(ring), self.options.chunk):
                end = min(start + self.options.chunk, len(ring))
                latents.add(self._latents(bucket, {name: one[start:end] for name, one in ring.values.items()}))
        pictures.rings.clear()
        self.log(f"flow: begins with {len(latents):,} samples")
        return latents

    def _due(self, interval: float, clock: str) -> bool:
        if time.perf_counter() - getattr(self, clock) < interval:
            return False
        setattr(self, clock, time.perf_counter())
        return True

    def _compiled(self, function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
        if not self.options.compile:
            return function
        return torch.compile(function, dynamic=False)


def _values(chunk: Chunk, device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in chunk.tensors().items()}


def _share(now: float, start: float, limit: float) -> float:
    """Return how much of a stage's time is over."""
    return (now - start) / max(limit - start, 1e-3)

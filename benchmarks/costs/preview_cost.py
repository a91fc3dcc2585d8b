"""Measures two ways to show a picture between steps: the bundle's own decoder, and a linear map of its latents.

    python -m kontext_trt.benchmarks.costs.preview_cost BUNDLE [--pictures N] [--steps N] [--json]

The map takes the 16 channels of a latent pixel to the colour of its 8x8 pixels, and is fitted by least squares: once on
results of EditBench's requests, once on what the decoder makes of random latents, which a server could do when it
starts. Both are judged on results that they were not fitted on, enlarged by BICUBIC, against what the decoder makes of
the same latents.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from ...engine.sizes import Size, token_grid
from ...runtime.flow.previews import Previews
from ...runtime.kontext import Kontext
from ..program import positive, run_main
from ..quality.editbench.samples import TEXT_TO_IMAGE, draw_sample
from ..quality.metrics import psnr_db

FIRST_SEED = 50_000
"""The first seed of the held-out samples that are edited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Holds a result: its latents as a picture (h, w, 16) float32, one per 8x8 pixels, and its pixels (H, W, 3) uint8.

    `step_ms` and `preview_ms` are the milliseconds per step and per preview by the decoder.
    """

    latents: NDArray[np.float32] = field(repr=False)
    pixels: NDArray[np.uint8] = field(repr=False)
    step_ms: float
    preview_ms: float


def as_picture(tokens: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Return packed latents (n, 4 c) as (2 rows, 2 columns, c)."""
    rows, columns = token_grid(size)
    return rearrange(tokens, "(h w) (c p q) -> (h p) (w q) c", h=rows, w=columns, p=2, q=2)


def fit_map(pairs: list[tuple[NDArray[np.float32], NDArray[np.uint8]]]) -> NDArray[np.float64]:
    """Return the (c + 1, 3) least-squares map from latent pixels, and a one, to the mean colours of their pixels."""
    inputs = np.concatenate([_with_one(latents).reshape(-1, latents.shape[-1] + 1) for latents, _ in pairs])
    colours = np.concatenate([_small(pixels, latents.shape[:2]).reshape(-1, 3) for latents, pixels in pairs])
    return np.linalg.lstsq(inputs, colours, rcond=None)[0].astype(np.float64)


def apply_map(fitted: NDArray[np.float64], latents: NDArray[np.float32], size: Size) -> NDArray[np.uint8]:
    """Return the preview that a map makes of latents, enlarged to a size."""
    small = np.clip(_with_one(latents) @ fitted + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))


def _with_one(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([latents, np.ones((*latents.shape[:2], 1), np.float32)], axis=-1)


def _small(pixels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float64]:
    height, width = pixels.shape[0] // shape[0], pixels.shape[1] // shape[1]
    return rearrange(pixels.astype(np.float64), "(h p) (w q) c -> h w (p q) c", p=height, q=width).mean(axis=2)


def edit_samples(kontext: Kontext, count: int, steps: int) -> list[Seen]:
    """Return results of EditBench's requests, each with three previews by the decoder."""
    found: list[Seen] = []
    seed = FIRST_SEED
    while len(found) < count:
        sample = draw_sample(seed, held_out=True)
        seed += 1
        if sample.task == TEXT_TO_IMAGE:
            continue
        shown: list[int] = []
        previews = Previews(count=3, show=lambda number, _, shown=shown: shown.append(number))
        reference = sample.reference()
        assert reference is not None
        result = kontext.edit(reference, sample.instruction, steps=steps, seed=seed, previews=previews)
        (output,) = result.outputs
        found.append(
            Seen(
                latents=as_picture(output.latents, result.size),
                pixels=np.asarray(output.image),
                step_ms=statistics.median(result.step_milliseconds),
                preview_ms=result.milliseconds["preview"] / len(shown),
            )
        )
    return found


def decode_random(kontext: Kontext, like: list[Seen]) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Return random latents of the results' own mean and deviation, and what the decoder makes of them."""
    draw = np.random.default_rng(0)
    pairs: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
    for one in like[:4]:
        mean, deviation = one.latents.mean(axis=(0, 1)), one.latents.std(axis=(0, 1))
        latents = (draw.standard_normal(one.latents.shape) * deviation + mean).astype(np.float32)
        packed = rearrange(latents, "(h p) (w q) c -> 1 h w (c p q)", p=2, q=2)
        pairs.append((latents, kontext.executor.run("vae_decoder", {"latents": packed})["image"][0]))
    return pairs


def measure(bundle: Path, count: int, steps: int) -> dict[str, float]:
    """Return the milliseconds per step, per preview of each way, and the map's mean PSNR in dB for either fit."""
    with Kontext.open(bundle) as kontext:
        kontext.load()
        edit_samples(kontext, 1, steps)
        seen = edit_samples(kontext, 2 * count, steps)
        random = decode_random(kontext, seen)
    learnt, held_out = seen[:count], seen[count:]
    maps = {"results": fit_map([(one.latents, one.pixels) for one in learnt]), "random": fit_map(random)}
    rows: dict[str, float] = {
        "step_ms": statistics.median(one.step_ms for one in seen),
        "decoder_ms": statistics.median(one.preview_ms for one in seen),
    }
    for name, fitted in maps.items():
        start = time.perf_counter()
        made = [apply_map(fitted, one.latents, (one.pixels.shape[1], one.pixels.shape[0])) for one in held_out]
        rows["map_ms"] = 1e3 * (time.perf_counter() - start) / len(made)
        rows[f"map_of_{name}_db"] = statistics.mean(
            psnr_db(one.pixels, picture) for one, picture in zip(held_out, made, strict=True)
        )
    return {name: round(value, 2) for name, value in rows.items()}


def main() -> None:
    """Measure and print what previews cost and show."""
    parser = argparse.ArgumentParser(description="What previews cost and show.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pictures", type=positive, default=16)
    parser.add_argument("--steps", type=positive, default=8)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.bundle, arguments.pictures, arguments.steps)
    if arguments.json:
        print(json.dumps(rows))
        return
    for name, value in rows.items():
        print(f"{name:18} {value:8.2f}")


if __name__ == "__main__":
    run_main(main)

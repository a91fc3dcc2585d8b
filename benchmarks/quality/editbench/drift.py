"""Measures how edits in a row wear a picture out: as latents, through pixels, and by the autoencoder alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from ....engine.components import COMPONENTS
from ....engine.progress import Progress, Silent
from ....engine.sizes import token_grid
from ....runtime.kontext import Kontext
from ....runtime.turn import Carry
from .cases import TURNS, chain
from .evaluation import answer, check_model
from .render import Pixels
from .roads import Road, edit_in_a_row, first_picture
from .samples import EditSample
from .scoring import decibels, score, squared_error

NUM_SESSIONS = 16
_, _, _ENCODER, _, _, _DECODER = COMPONENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Holds both roads, and what encoding and decoding alone does to the same pictures as often.

    Attributes:
        sessions: The number of chains.
        samples: The edits of the first chain.
        roads: Latents and pixels.
        alone: Per turn the share of chains whose edits up to it are right if each begins with the known picture before
            it: what the model gets wrong without any drift.
        autoencoder_db: Per turn the first picture after so many times of encoding and decoding, compared with itself
            before, in dB.
    """

    sessions: int
    samples: tuple[EditSample, ...]
    roads: tuple[Road, ...]
    alone: tuple[float, ...]
    autoencoder_db: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, for JSON."""
        return {
            "sessions": self.sessions,
            "roads": [{"carry": road.carry, "lost_db": road.lost_db, "turns": road.turns} for road in self.roads],
            "alone": self.alone,
            "autoencoder_db": self.autoencoder_db,
        }


def measure_drift(
    kontext: Kontext,
    *,
    sessions: int = NUM_SESSIONS,
    turns: int = len(TURNS),
    seed: int = 0,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Drift:
    """Edit pictures in a row in sessions that carry latents and in sessions that carry pixels, with noise of `seed`.

    Raises:
        BundleError: The bundle is of another model.
        KontextError: What `Session.edit` raises.
    """
    check_model(kontext)
    progress = progress or Silent()
    chains = [chain(number, turns) for number in range(sessions)]
    progress.start("sessions", (len(Carry) + 2) * sessions * turns)
    roads = tuple(edit_in_a_row(kontext, chains, carry, seed=seed, steps=steps, progress=progress) for carry in Carry)
    return Drift(
        sessions=sessions,
        samples=chains[0],
        roads=roads,
        alone=_alone(kontext, chains, seed, steps, progress),
        autoencoder_db=_autoencoder(kontext, chains, progress),
    )


def _alone(
    kontext: Kontext, chains: Sequence[Sequence[EditSample]], seed: int, steps: int | None, progress: Progress
) -> tuple[float, ...]:
    """Return per turn the share of chains that are right up to it, if each edit begins with the known picture."""
    right: list[list[bool]] = [[] for _ in chains[0]]
    for samples in chains:
        so_far = True
        for results, sample in zip(right, samples, strict=True):
            so_far &= score(sample, answer(kontext, sample, sample.reference(), seed, steps)).success
            results.append(so_far)
            progress.advance(1)
    return tuple(mean(results) for results in right)


def _autoencoder(kontext: Kontext, chains: Sequence[Sequence[EditSample]], progress: Progress) -> tuple[float, ...]:
    """Return the dB of the first pictures to themselves after 1, 2, ... times of encoding and decoding."""
    errors: list[list[float]] = [[] for _ in chains[0]]
    through = _through(kontext)
    for samples in chains:
        first = picture = first_picture(samples)
        everywhere = np.ones(first.shape[:2], bool)
        for results in errors:
            picture = through(picture)
            results.append(squared_error(picture, first, everywhere))
            progress.advance(1)
    return tuple(decibels(mean(results)) for results in errors)


def _through(kontext: Kontext) -> Callable[[Pixels], Pixels]:
    """Return a function that encodes a picture (H, W, 3) uint8 and decodes it again."""

    def through(picture: Pixels) -> Pixels:
        latents = kontext.executor.run(_ENCODER, {"image": picture[None]})["reference"]
        grid = token_grid((picture.shape[1], picture.shape[0]))
        packed = latents.reshape(1, *grid, latents.shape[-1])
        return kontext.executor.run(_DECODER, {"latents": packed})["image"][0]

    return through

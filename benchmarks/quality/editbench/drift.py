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
from ....runtime.session import Session
from ....runtime.turn import Carry
from .cases import TURNS, chain
from .evaluation import Turn, answer, check_model
from .render import Pixels
from .samples import EditSample
from .scoring import decibels, score, squared_error

NUM_SESSIONS = 16
_, _, _ENCODER, _, _, _DECODER = COMPONENTS


@dataclass(frozen=True, slots=True)
class Shown:
    """Holds a picture of a chain, whether it is right, and its untouched pixels beside the first picture's in dB."""

    picture: Pixels
    success: bool
    untouched_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """Holds what came of the chains on one road, turn by turn.

    Attributes:
        carry: "latents" or "pixels".
        turns: One entry per turn; a mistake in one is one in all later ones.
        shown: The pictures of the first chain.
        lost_db: How much worse the untouched pixels are after the last turn than after the first, in dB.
    """

    carry: str
    turns: tuple[Turn, ...]
    shown: tuple[Shown, ...]

    @property
    def lost_db(self) -> float:
        return self.turns[0].untouched_db - self.turns[-1].untouched_db


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
    roads = tuple(_road(kontext, chains, carry, seed, steps, progress) for carry in Carry)
    return Drift(
        sessions=sessions,
        samples=chains[0],
        roads=roads,
        alone=_alone(kontext, chains, seed, steps, progress),
        autoencoder_db=_autoencoder(kontext, chains, progress),
    )


def _road(
    kontext: Kontext,
    chains: Sequence[Sequence[EditSample]],
    carry: Carry,
    seed: int,
    steps: int | None,
    progress: Progress,
) -> Road:
    per_turn: list[list[tuple[float, bool]]] = [[] for _ in chains[0]]
    shown: list[Shown] = []
    for samples in chains:
        first = _first(samples)
        stays = np.ones(first.shape[:2], bool)
        with Session(kontext, first, carry=carry) as session:
            for results, sample in zip(per_turn, samples, strict=True):
                session.edit(sample.instruction, seed=seed, steps=steps)
                picture = np.asarray(session.image)
                stays &= sample.stays()
                error, success = squared_error(picture, first, stays), score(sample, picture).success
                results.append((error, success))
                if samples is chains[0]:
                    shown.append(Shown(picture, success, decibels(error)))
                progress.advance(1)
    return Road(
        carry=carry.value,
        shown=tuple(shown),
        turns=tuple(
            Turn(
                task=sample.task,
                untouched_db=decibels(mean(error for error, _ in results)),
                success=mean(right for _, right in results),
            )
            for sample, results in zip(chains[0], per_turn, strict=True)
        ),
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
        first = picture = _first(samples)
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


def _first(samples: Sequence[EditSample]) -> Pixels:
    first = samples[0].reference()
    assert first is not None, "a chain begins with a picture"
    return first

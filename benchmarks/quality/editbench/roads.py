"""Edits pictures in a row, carried as latents or through pixels, and judges each turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from ....engine.progress import Progress
from ....runtime.kontext import Kontext
from ....runtime.session import Session
from ....runtime.turn import Carry
from .render import Pixels
from .samples import EditSample
from .scoring import decibels, score, squared_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Holds one of the edits in a row.

    `untouched_db` compares the pixels that no edit up to it may touch with the first picture's, `success` is of the
    whole picture: a mistake in one turn is one in all later ones.
    """

    task: str
    untouched_db: float
    success: float


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


def edit_in_a_row(
    kontext: Kontext,
    chains: Sequence[Sequence[EditSample]],
    carry: Carry,
    *,
    seed: int,
    steps: int | None,
    progress: Progress,
) -> Road:
    """Edit the first picture of each chain as its samples say, one after another, in a session of its own.

    Raises:
        KontextError: What `Session.edit` raises.
    """
    per_turn: list[list[tuple[float, bool]]] = [[] for _ in chains[0]]
    shown: list[Shown] = []
    for samples in chains:
        first = first_picture(samples)
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


def first_picture(samples: Sequence[EditSample]) -> Pixels:
    """Return the picture (H, W, 3) uint8 that a chain begins with."""
    first = samples[0].reference()
    assert first is not None, "a chain begins with a picture"
    return first

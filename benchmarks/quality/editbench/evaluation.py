"""Runs EditBench on a bundle, and holds what comes of it, without torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np

from ....engine.errors import BundleError
from ....engine.progress import Progress, Silent
from ....engine.sizes import Size
from ....runtime.inputs.request import Request, Sampling
from ....runtime.kontext import Kontext
from ....runtime.turn import Carry
from .cases import KINDS, NUM_CASES, NUM_CHAINS, TURNS, EditCase, cases, chain
from .render import Pixels
from .roads import Turn, edit_in_a_row
from .samples import EditSample
from .scene import SIZES
from .scoring import Score, decibels, score


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds what a bundle made of a case."""

    case: EditCase
    picture: Pixels
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Holds one line of the table: a kind of request, a task of it, or all.

    PSNR is that of the mean squared error, in dB; `outside_db` is None where nothing has to stay.
    """

    name: str
    number: int
    success: float
    inside_db: float
    outside_db: float | None

    @classmethod
    def of(cls, name: str, answers: Sequence[Answer]) -> Row:
        scores = [answer.score for answer in answers]
        outside = [one.outside for one in scores if one.outside is not None]
        return cls(
            name=name,
            number=len(scores),
            success=mean(one.success for one in scores),
            inside_db=decibels(mean(one.inside for one in scores)),
            outside_db=decibels(mean(outside)) if outside else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Holds answers to the cases, and the edits in a row, which only all the cases come with."""

    answers: tuple[Answer, ...]
    turns: tuple[Turn, ...]
    bundle: str
    executor: str
    steps: int
    seed: int
    seconds: float

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the table that were asked for: all, each kind, and below kinds of several tasks each task."""
        rows = [Row.of("all", self.answers)]
        for kind, tasks in KINDS.items():
            of_kind = [answer for answer in self.answers if answer.case.kind == kind]
            names = tasks if len(tasks) > 1 else ()
            groups = {kind: of_kind} | {
                f"  {task}": [a for a in of_kind if a.case.sample.task == task] for task in names
            }
            rows += [Row.of(name, answers) for name, answers in groups.items() if answers]
        return tuple(rows)

    @property
    def median_outside_db(self) -> float | None:
        """The median of single answers: what is usual, where the rows' means are ruled by the worst."""
        outside = [decibels(answer.score.outside) for answer in self.answers if answer.score.outside is not None]
        return median(outside) if outside else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, for JSON."""
        return {
            "bundle": self.bundle,
            "executor": self.executor,
            "steps": self.steps,
            "seed": self.seed,
            "seconds": self.seconds,
            "rows": self.rows,
            "median_outside_db": self.median_outside_db,
            "turns": self.turns,
            "answers": [
                {
                    "number": answer.case.number,
                    "kind": answer.case.kind,
                    "task": answer.case.sample.task,
                    "instruction": answer.case.sample.instruction,
                    "score": answer.score,
                }
                for answer in self.answers
            ],
        }


def evaluate(
    kontext: Kontext,
    *,
    count: int = NUM_CASES,
    seed: int = 0,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Answer the first `count` cases, and after all of them edit a few pictures in a row, with noise of `seed`.

    Raises:
        BundleError: The bundle is of another model.
        ValueError: The count is out of range.
        KontextError: What `Kontext.edit` raises.
    """
    check_model(kontext)
    chosen, progress = cases(count), progress or Silent()
    start = time.perf_counter()
    progress.start("EditBench", len(chosen))
    answers = []
    for case in chosen:
        picture = answer(kontext, case.sample, case.sample.reference(), seed, steps)
        answers.append(Answer(case, picture, score(case.sample, picture)))
        progress.advance(1)
    turns: tuple[Turn, ...] = ()
    if count == NUM_CASES:
        progress.start("edits in a row", NUM_CHAINS * len(TURNS))
        chains = [chain(number) for number in range(NUM_CHAINS)]
        turns = edit_in_a_row(kontext, chains, Carry.PIXELS, seed=seed, steps=steps, progress=progress).turns
    return Evaluation(
        answers=tuple(answers),
        turns=turns,
        bundle=kontext.bundle.fingerprint,
        executor=kontext.executor.name,
        steps=steps or kontext.bundle.manifest.model.flow.steps,
        seed=seed,
        seconds=time.perf_counter() - start,
    )


def check_model(kontext: Kontext) -> None:
    """Raise BundleError unless the bundle is of the small Kontext, as `check_sizes` does."""
    check_sizes(kontext.sizes)


def check_sizes(sizes: Sequence[Size]) -> None:
    """Raise BundleError unless a bundle is of the small Kontext, which its trained (width, height) in pixels show."""
    if set(sizes) != set(SIZES):
        found, wanted = (", ".join(f"{width}x{height}" for width, height in some) for some in (sizes, SIZES))
        raise BundleError(
            f"EditBench needs a bundle of the small Kontext, trained at {wanted}; this bundle's model was trained at "
            f"{found}. Make one with: kontext-trt export examples/small_kontext/checkpoint BUNDLE --precision fp32"
        )


def answer(kontext: Kontext, sample: EditSample, reference: Pixels | None, seed: int, steps: int | None) -> Pixels:
    """Return the bundle's answer to a sample's instruction, for a reference that may be another than the sample's."""
    sampling = Sampling(size=sample.size, seed=seed, steps=steps)
    result = kontext.run(Request(prompt=sample.instruction, image=reference, sampling=sampling))
    return np.asarray(result.image)

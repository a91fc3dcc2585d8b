"""Measures how far a bundle's answers are from another's that began with the same noise, which takes no judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....engine.errors import BenchmarkError
from ....engine.progress import Progress, Silent
from ..metrics import decibels, ssim
from .perceptual import Lpips
from .records import Answer, Lines, held

COMPARISON = "comparison.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Holds how far two answers to one item are from each other.

    Attributes:
        key: The item's key.
        category: Its category.
        sha256: The hash of the answer's file.
        other_sha256: The hash of the other's.
        squared_error: The mean squared difference of the pixels' values, of 0 to 255.
        ssim: The structural similarity, 1 for equal pictures.
        lpips: The LPIPS distance, None if it was not asked for.
    """

    key: str
    category: str
    sha256: str
    other_sha256: str
    squared_error: float
    ssim: float
    lpips: float | None = None

    @property
    def psnr_db(self) -> float:
        """The PSNR in dB, infinite for equal pictures."""
        return decibels(255.0**2, self.squared_error)


def compare_answers(
    folder: Path,
    answers: Mapping[str, Answer],
    other_folder: Path,
    others: Mapping[str, Answer],
    *,
    lpips: Lpips | None = None,
    progress: Progress | None = None,
) -> dict[str, Pair]:
    """Return by key how far answers are from another folder's, where both have one.

    What was measured before of the same two files is taken from comparison.jsonl in `folder`, and the rest added.

    Args:
        folder: The folder of results.
        answers: Its answers by key.
        other_folder: The folder that they are held against.
        others: The answers there by key.
        lpips: The network that measures LPIPS, None to leave that out.
        progress: Who hears of pairs that are measured.

    Raises:
        BenchmarkError: Two answers are to different questions, of other noise, or of other sizes.
    """
    progress = progress or Silent()
    both = [key for key in answers if key in others]
    for key in both:
        _check_comparable(answers[key], others[key], other_folder)
    lines = Lines(folder / COMPARISON, Pair)
    pairs: dict[str, Pair] = {}
    with held(folder):
        known = {(pair.sha256, pair.other_sha256): pair for pair in lines.read()}
        missing = []
        for key in both:
            found = known.get((answers[key].sha256, others[key].sha256))
            if found is None or (lpips is not None and found.lpips is None):
                missing.append(key)
            else:
                pairs[key] = replace(found, key=key, category=answers[key].category)
        progress.start("comparing", len(missing))
        with lines.appending() as log:
            for key in missing:
                one, other = answers[key], others[key]
                pixels = _pixels(folder / one.file), _pixels(other_folder / other.file)
                pairs[key] = Pair(
                    key=key,
                    category=one.category,
                    sha256=one.sha256,
                    other_sha256=other.sha256,
                    squared_error=float(np.mean((pixels[0].astype(np.float64) - pixels[1]) ** 2)),
                    ssim=ssim(*pixels),
                    lpips=None if lpips is None else lpips.distance(*pixels),
                )
                log.add(pairs[key])
                progress.advance(1)
    return {key: pairs[key] for key in both}


def worst(pairs: Mapping[str, Pair], count: int) -> Sequence[Pair]:
    """Return the `count` pairs that are farthest from each other by PSNR, the farthest first."""
    return sorted(pairs.values(), key=lambda pair: -pair.squared_error)[:count]


def _check_comparable(one: Answer, other: Answer, folder: Path) -> None:
    for what, mine, yours in (
        ("instruction", one.prompt_sha256, other.prompt_sha256),
        ("picture", one.reference_sha256, other.reference_sha256),
        ("seed", one.seed, other.seed),
        ("size", one.size, other.size),
    ):
        if mine != yours:
            shown = "" if isinstance(mine, str) else f" ({mine} here, {yours} there)"
            raise BenchmarkError(
                f"{folder} has another {what} for {one.key!r}{shown}; answers are compared to the same question, from "
                "the same noise"
            )


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error}; make the answers of that folder again") from None

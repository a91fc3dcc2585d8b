"""Writes the page to look through a run, which reads what lies beside it: there is no server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from ....engine.system.files import atomic_file, share_file
from .against import Pair
from .judging import Judged
from .layouts import Item
from .running import Run
from .summary import Summary

PAGE = "index.html"
TEMPLATE = Path(__file__).with_name("gallery.html")
MARK = "null/*DATA*/"
REFERENCES = "references"


def write_gallery(
    folder: Path,
    items: Sequence[Item],
    summary: Summary,
    *,
    pairs: Mapping[str, Pair],
    verdicts: Mapping[str, Judged],
    other_verdicts: Mapping[str, Judged],
) -> Path:
    """Write index.html into a folder of results, and the pictures to edit beside it, and return the page.

    Args:
        folder: The folder of results.
        items: What was asked.
        summary: What came of it.
        pairs: The distances from the other answers by key.
        verdicts: What a judge said of the answers by key.
        other_verdicts: What it said of the others.

    Raises:
        OSError: A file cannot be written.
    """
    document = {
        "bench": summary.bench,
        "layout": summary.layout,
        "bundle": _named(summary.run),
        "against": None if summary.other is None else _named(summary.other),
        "judge": summary.judge,
        "items": [
            _shown(folder, item, summary, pairs.get(item.key), verdicts.get(item.key), other_verdicts.get(item.key))
            for item in items
        ],
    }
    data = msgspec.json.encode(document).decode().replace("<", "\\u003c")
    with atomic_file(folder / PAGE) as file:
        file.write(TEMPLATE.read_text(encoding="utf-8").replace(MARK, data).encode())
    return folder / PAGE


def _named(run: Run) -> str:
    settings = run.settings
    more = [settings.solver] if settings.solver != "euler" else []
    more += ["sigmas"] if settings.sigmas is not None else []
    more += ["cached steps"] if settings.step_mask is not None and not all(settings.step_mask) else []
    return ", ".join([run.bundle[:12], f"{settings.steps} steps", *more])


def _shown(
    folder: Path,
    item: Item,
    summary: Summary,
    pair: Pair | None,
    verdict: Judged | None,
    other_verdict: Judged | None,
) -> dict[str, Any]:
    answer, failure = summary.run.answers.get(item.key), summary.run.failures.get(item.key)
    other = None if summary.other is None else summary.other.answers.get(item.key)
    return {
        "key": item.key,
        "category": item.category,
        "instruction": item.instruction,
        "reference": _reference(folder, item),
        "answer": None if answer is None else _url(folder / answer.file, folder),
        "size": None if answer is None else answer.size,
        "seed": None if answer is None else answer.seed,
        "ms": None if answer is None else round(answer.ms),
        "error": None if failure is None else failure.error,
        "other": None if other is None or summary.other is None else _url(summary.other.folder / other.file, folder),
        "psnr": None if pair is None else pair.psnr_db,
        "equal": pair is not None and pair.squared_error == 0,
        "ssim": None if pair is None else pair.ssim,
        "lpips": None if pair is None else pair.lpips,
        "marks": _marks(verdict),
        "otherMarks": _marks(other_verdict),
    }


def _marks(verdict: Judged | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    if verdict.marks is None:
        return {"error": verdict.error}
    marks = verdict.marks
    return {
        "semantic": marks.semantic_consistency,
        "quality": marks.perceptual_quality,
        "overall": marks.overall,
        "reason": marks.reason,
    }


def _reference(folder: Path, item: Item) -> str | None:
    """Return the URL of the picture to edit, which is put beside the page if it is not there."""
    place = (folder / REFERENCES / item.file).with_suffix(item.picture.suffix.lower() or ".png")
    if not item.picture.is_file():
        return None
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        share_file(item.picture, place)
    return _url(place, folder)


def _url(path: Path, folder: Path) -> str:
    return quote(os.path.relpath(path, folder))

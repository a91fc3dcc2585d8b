"""Sums up a benchmark's run: a row per category and one of all, what failed, and who made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

from ..metrics import decibels
from .against import Pair, worst
from .judging import Judged, count_faults
from .layouts import Item
from .running import Run

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Holds what came of one category.

    What nobody asked for is None; so are decibels of equal pictures, which are infinite.

    Attributes:
        name: The category, or "all".
        items: The number of items that were asked.
        answered: How many have an answer.
        median_ms: The median of their milliseconds.
        compared: How many were held against another answer.
        equal: How many of these are equal to it, pixel by pixel.
        psnr_db: The PSNR of the mean squared error of all their pixels, which the worst rule.
        median_psnr_db: The median of their PSNR, which is what is usual.
        ssim: The mean structural similarity.
        lpips: The mean LPIPS distance.
        judged: How many got marks.
        semantic_consistency: The mean mark for it, 0 to 10.
        perceptual_quality: The mean mark for it, 0 to 10.
        overall: The mean over items of the square root of the two marks' product.
    """

    name: str
    items: int
    answered: int
    median_ms: float | None = None
    compared: int = 0
    equal: int = 0
    psnr_db: float | None = None
    median_psnr_db: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    judged: int = 0
    semantic_consistency: float | None = None
    perceptual_quality: float | None = None
    overall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Holds a run's rows, "all" first, and what is said of the run itself.

    `other_rows` are the other bundle's, where its answers were judged, too; `judge_faults` counts attempts that failed,
    by kind, and `unjudged` the answers that got no marks.
    """

    bench: str
    layout: str
    run: Run
    other: Run | None
    rows: tuple[Row, ...]
    other_rows: tuple[Row, ...] = ()
    worst: tuple[Pair, ...] = ()
    judge: str = ""
    judge_faults: Mapping[str, int] = field(default_factory=dict)
    unjudged: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON, in which infinite decibels are null."""
        return {
            "bench": self.bench,
            "layout": self.layout,
            **_about(self.run),
            "against": None if self.other is None else _about(self.other),
            "rows": self.rows,
            "against_rows": self.other_rows,
            "worst": [
                {"key": pair.key, "category": pair.category, "psnr_db": pair.psnr_db, "ssim": pair.ssim}
                for pair in self.worst
            ],
            "judge": self.judge or None,
            "judge_faults": self.judge_faults,
            "unjudged": self.unjudged,
        }


def _about(run: Run) -> dict[str, object]:
    failures = [{"key": one.key, "category": one.category, "error": one.error} for one in run.failures.values()]
    return {"bundle": run.bundle, "executor": run.executor, "settings": run.settings, "failures": failures}


def summarize(
    bench: str,
    layout: str,
    items: Sequence[Item],
    run: Run,
    other: Run | None,
    *,
    pairs: Mapping[str, Pair],
    verdicts: Mapping[str, Judged],
    other_verdicts: Mapping[str, Judged],
    judge: str = "",
    num_worst: int = 10,
) -> Summary:
    """Sum up a run, and what was measured of it."""
    return Summary(
        bench=bench,
        layout=layout,
        run=run,
        other=other,
        rows=rows(items, run, pairs, verdicts),
        other_rows=rows(items, other, {}, other_verdicts) if other is not None and other_verdicts else (),
        worst=tuple(worst(pairs, num_worst)),
        judge=judge,
        judge_faults=count_faults({**{f"{key}/": one for key, one in other_verdicts.items()}, **verdicts}),
        unjudged=sum(one.marks is None for one in (*verdicts.values(), *other_verdicts.values())),
    )


def rows(items: Sequence[Item], run: Run, pairs: Mapping[str, Pair], verdicts: Mapping[str, Judged]) -> tuple[Row, ...]:
    """Return the row of all items, and one per category if there are several."""
    categories = list(dict.fromkeys(item.category for item in items))
    groups = {ALL: list(items)}
    if len(categories) > 1:
        groups |= {name: [item for item in items if item.category == name] for name in categories}
    return tuple(_row(name, [item.key for item in group], run, pairs, verdicts) for name, group in groups.items())


def _row(name: str, keys: Sequence[str], run: Run, pairs: Mapping[str, Pair], verdicts: Mapping[str, Judged]) -> Row:
    answers = [run.answers[key] for key in keys if key in run.answers]
    compared = [pairs[key] for key in keys if key in pairs]
    marks = [one for key in keys if key in verdicts and (one := verdicts[key].marks) is not None]
    distances = [pair.lpips for pair in compared if pair.lpips is not None]
    return Row(
        name=name,
        items=len(keys),
        answered=len(answers),
        median_ms=median(answer.ms for answer in answers) if answers else None,
        compared=len(compared),
        equal=sum(pair.squared_error == 0 for pair in compared),
        psnr_db=decibels(255.0**2, mean(pair.squared_error for pair in compared)) if compared else None,
        median_psnr_db=median(pair.psnr_db for pair in compared) if compared else None,
        ssim=mean(pair.ssim for pair in compared) if compared else None,
        lpips=mean(distances) if distances and len(distances) == len(compared) else None,
        judged=len(marks),
        semantic_consistency=mean(one.semantic_consistency for one in marks) if marks else None,
        perceptual_quality=mean(one.perceptual_quality for one in marks) if marks else None,
        overall=mean(one.overall for one in marks) if marks else None,
    )

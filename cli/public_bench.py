"""Defines the options of `evaluate --bench`, and shows what came of a public benchmark."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..benchmarks.quality.public.choice import Choice, parse_shard
from ..benchmarks.quality.public.evaluation import PublicOptions, evaluate_public
from ..benchmarks.quality.public.judge import JudgeOptions
from ..benchmarks.quality.public.summary import Row, Summary
from ..engine.errors import OptionError
from ..engine.printable import counted
from ..runtime.inputs.request import Sampling
from ..runtime.kontext import Kontext
from .tables import print_table
from .terminal import notes, print_json, progress_bars, screen

OUT = "evaluation"
KEY_VARIABLE = "KONTEXT_TRT_JUDGE_KEY"
MARKS = ("consistency", "quality", "overall")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Says which items of a public benchmark are asked, and what the answers are held against."""

    bench: Annotated[
        Path | None,
        typer.Option(help="A public benchmark: a folder with metadata.jsonl, or another file of JSON lines."),
    ] = None
    categories: Annotated[str | None, typer.Option(help="Only these, with commas between.")] = None
    language: Annotated[str | None, typer.Option(help="Only instructions in this one: en or cn of GEdit-Bench.")] = None
    shard: Annotated[str | None, typer.Option(help="K/N: the K-th of N shares, each in an --out of its own.")] = None
    against: Annotated[
        Path | None, typer.Option(help="Another bundle, or an --out of one: PSNR and SSIM at the same seeds.")
    ] = None
    lpips: Annotated[bool, typer.Option("--lpips", help="With --against, LPIPS as well; the extra lpips.")] = False

    @property
    def given(self) -> dict[str, bool]:
        """The options that mean nothing without a benchmark, and whether they are given."""
        return {
            "--categories": self.categories is not None,
            "--language": self.language is not None,
            "--shard": self.shard is not None,
            "--against": self.against is not None,
            "--lpips": self.lpips,
        }

    def options(
        self, out: Path | None, count: int | None, seed: int, sampling: Sampling, judge: JudgeOptions | None
    ) -> PublicOptions:
        """Return them with what other options say. Raises OptionError if one means nothing."""
        if self.bench is None or (self.lpips and self.against is None):
            raise OptionError("--lpips is a distance from other answers; name them with --against")
        categories = [name.strip() for name in (self.categories or "").split(",")]
        return PublicOptions(
            bench=self.bench,
            out=out or Path(OUT),
            choice=Choice(
                language=self.language,
                categories=tuple(filter(None, categories)),
                count=count,
                shard=(1, 1) if self.shard is None else parse_shard(self.shard),
            ),
            sampling=sampling,
            seed=seed,
            against=self.against,
            lpips=self.lpips,
            judge=judge,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingOptions:
    """Says who judges the answers to a public benchmark."""

    judge_url: Annotated[
        str | None, typer.Option(help="The base of an OpenAI-compatible API, as http://127.0.0.1:8000/v1.")
    ] = None
    judge_model: Annotated[str | None, typer.Option(help="The model there that judges; it must read pictures.")] = None
    judge_key: Annotated[
        str, typer.Option(metavar="VARIABLE", help="The environment variable with the key, if one is needed.")
    ] = KEY_VARIABLE
    judge_workers: Annotated[int, typer.Option(help="How many questions are asked at once.")] = 4

    @property
    def given(self) -> dict[str, bool]:
        """The options that mean nothing without a benchmark, and whether they are given."""
        return {"--judge-url": self.judge_url is not None, "--judge-model": self.judge_model is not None}

    def judge(self) -> JudgeOptions | None:
        """Return who judges, None for nobody."""
        if self.judge_url is None and self.judge_model is None:
            return None
        if self.judge_url is None or self.judge_model is None:
            raise OptionError("a judge is named by --judge-url and --judge-model; give both")
        key = os.environ.get(self.judge_key) or None
        if key is None and self.judge_key != KEY_VARIABLE:
            raise OptionError(f"--judge-key: the environment variable {self.judge_key} is not set")
        return JudgeOptions(url=self.judge_url, model=self.judge_model, key=key, workers=self.judge_workers)


def run(
    bundle: Path,
    opener: Callable[[Path], AbstractContextManager[Kontext]],
    options: PublicOptions,
    *,
    as_json: bool,
) -> None:
    """Evaluate a bundle on a public benchmark, and show what came of it. Failed items make the exit code 1."""
    try:
        with progress_bars() as bars:
            summary, page = evaluate_public(bundle, options, opener, bars)
    except KeyboardInterrupt:
        notes.print(f"what was recorded stays in {options.out}; the same command goes on from there")
        raise
    if as_json:
        print_json(summary.to_dict())
    else:
        _show(summary)
    failures = [*summary.run.failures.values(), *(summary.other.failures.values() if summary.other else ())]
    for failure in failures:
        notes.print(f"{failure.key}: {failure.error}")
    notes.print(f"{page}, with summary.json, results.jsonl and the pictures beside it")
    if failures:
        notes.print(f"{counted(len(failures), 'item')} failed; the same command tries what failed again")
        raise typer.Exit(1)


def _show(summary: Summary) -> None:
    compared, judged = summary.other is not None, bool(summary.judge)
    with_lpips = any(row.lpips is not None for row in summary.rows)
    heads = ["", "items", "answered", "median s"]
    heads += ["PSNR dB", "median", "SSIM"] if compared else []
    heads += ["LPIPS"] if with_lpips else []
    heads += MARKS if judged else []
    lines: list[list[str]] = []
    for row in summary.rows:
        cells = [row.name, f"{row.items}", f"{row.answered}", _number(_seconds(row), 2)]
        if compared:
            cells += [_decibels(row.psnr_db), _decibels(row.median_psnr_db), _number(row.ssim, 4)]
        cells += [_number(row.lpips, 4)] if with_lpips else []
        lines.append([*cells, *(_marks(row) if judged else ())])
    print_table(heads, lines, right=True)
    if summary.other_rows:
        others = [[row.name, f"{row.judged}", *_marks(row)] for row in summary.other_rows]
        print_table(["the other", "judged", *MARKS], others, right=True)
    unlike = [pair for pair in summary.worst if pair.squared_error]
    if unlike:
        far = ", ".join(f"{pair.key} ({_decibels(pair.psnr_db)})" for pair in unlike[:5])
        screen.print(f"farthest from the other: {far}")
    if judged:
        faults = ", ".join(f"{count} {kind}" for kind, count in summary.judge_faults.items()) or "none"
        screen.print(f"judge {summary.judge}: {summary.unjudged} answers without marks; failed attempts: {faults}")


def _seconds(row: Row) -> float | None:
    return None if row.median_ms is None else row.median_ms / 1000


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _decibels(value: float | None) -> str:
    if value == float("inf"):
        return "equal"
    return _number(value, 1)


def _marks(row: Row) -> Sequence[str]:
    return (_number(row.semantic_consistency, 2), _number(row.perceptual_quality, 2), _number(row.overall, 2))

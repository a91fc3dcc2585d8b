"""Evaluates a bundle on a benchmark: its answers, how far they are from another's, what a judge says, and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ....engine.bundle.bundle import MANIFEST
from ....engine.errors import BenchmarkError
from ....engine.progress import Progress, Silent
from ....engine.system.files import atomic_file
from ....runtime.inputs.request import Sampling
from ....runtime.kontext import Kontext
from .against import Pair, compare_answers
from .choice import Choice
from .gallery import write_gallery
from .judge import JudgeOptions
from .judging import Judged, judge_answers, known_verdicts
from .layouts import Bench, Item, read_bench
from .perceptual import Lpips
from .records import RESULTS, Answer, read_answers
from .running import Run, run_bench
from .summary import Summary, summarize

AGAINST = "against"
"""The folder of the other bundle's answers, in the folder of results."""
SUMMARY = "summary.json"
Opener = Callable[[Path], AbstractContextManager[Kontext]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicOptions:
    """Says what is evaluated and how.

    Attributes:
        bench: The benchmark: its folder, or its file of lines.
        out: The folder of results; it is made.
        choice: Which items are asked.
        sampling: How answers are sampled, without seeds.
        seed: The seed that items' own are drawn from.
        against: Another bundle, which answers, too, or the folder of results of one; None for none.
        lpips: Also measure LPIPS, where answers are held against others.
        judge: Who judges the answers; None for nobody.
    """

    bench: Path
    out: Path
    choice: Choice = field(default_factory=Choice)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    against: Path | None = None
    lpips: bool = False
    judge: JudgeOptions | None = None


def evaluate_public(
    bundle: Path, options: PublicOptions, opener: Opener, progress: Progress | None = None
) -> tuple[Summary, Path]:
    """Evaluate a bundle on a benchmark, and return the summary and the page to look through.

    Whatever an earlier call has recorded in the same folder, of the same bundle and sampling, is not done again.

    Args:
        bundle: The bundle's folder.
        options: What is evaluated and how.
        opener: Opens a bundle's folder.
        progress: Who hears how it goes on.

    Raises:
        BenchmarkError: The benchmark, a folder of results or the judge cannot be used.
        OptionError: No such items are there.
        MissingDependencyError: LPIPS is asked for, and its packages are missing.
        KontextError: A bundle cannot be opened or run.
    """
    progress = progress or Silent()
    bench = read_bench(options.bench)
    items = options.choice.of(bench)
    if options.out.exists() and not options.out.is_dir():
        raise BenchmarkError(f"{options.out} is a file; answers need a folder: name another with --out")
    lpips = Lpips() if options.lpips else None
    recorded = None if options.against is None else _recorded(options.against, items, bench)
    run = _run(bundle, items, options.out, options, opener, progress)
    other = recorded
    if options.against is not None and recorded is None:
        other = _run(options.against, items, options.out / AGAINST, options, opener, progress)
    pairs: Mapping[str, Pair] = {}
    if other is not None:
        pairs = compare_answers(options.out, run.answers, other.folder, other.answers, lpips=lpips, progress=progress)
    verdicts, other_verdicts = _judge(items, run, other, options, progress, judge_other=recorded is None)
    summary = summarize(
        str(bench.path), bench.layout.name, items, run, other, pairs=pairs, verdicts=verdicts,
        other_verdicts=other_verdicts, judge="" if options.judge is None else options.judge.model,
    )  # fmt: skip
    page = write_gallery(options.out, items, summary, pairs=pairs, verdicts=verdicts, other_verdicts=other_verdicts)
    with atomic_file(options.out / SUMMARY) as file:
        file.write(msgspec.json.format(msgspec.json.encode(summary.to_dict()), indent=1) + b"\n")
    return summary, page


def _run(
    bundle: Path, items: Sequence[Item], folder: Path, options: PublicOptions, opener: Opener, progress: Progress
) -> Run:
    with opener(bundle) as kontext:
        return run_bench(kontext, items, folder, sampling=options.sampling, seed=options.seed, progress=progress)


def _recorded(folder: Path, items: Sequence[Item], bench: Bench) -> Run | None:
    """Return what a folder of results has for the items; None for a bundle, which has to answer first."""
    if (folder / MANIFEST).is_file():
        return None
    if not (folder / RESULTS).is_file():
        raise BenchmarkError(f"--against is a bundle or a folder with {RESULTS}; {folder} is neither")
    answers = read_answers(folder)
    found: dict[str, Answer] = {item.key: answers[item.key] for item in items if item.key in answers}
    if not found:
        raise BenchmarkError(f"{folder} has no answer to any of the {len(items)} items of {bench.path}")
    first = next(iter(found.values()))
    if {answer.bundle for answer in found.values()} != {first.bundle}:
        raise BenchmarkError(f"{folder} has answers of several bundles; give one with those of one")
    return Run(
        folder=folder,
        bundle=first.bundle,
        executor=first.executor,
        settings=first.settings,
        answers=found,
        failures={},
        made=0,
    )


def _judge(
    items: Sequence[Item],
    run: Run,
    other: Run | None,
    options: PublicOptions,
    progress: Progress,
    *,
    judge_other: bool,
) -> tuple[Mapping[str, Judged], Mapping[str, Judged]]:
    """Return what the judge says of the answers, and of the others': a folder of elsewhere is only read."""
    if options.judge is None:
        return {}, {}
    verdicts = judge_answers(run.folder, items, run.answers, options.judge, progress)
    if other is None:
        return verdicts, {}
    if judge_other:
        return verdicts, judge_answers(other.folder, items, other.answers, options.judge, progress)
    known = known_verdicts(other.folder, options.judge.model)
    return verdicts, {key: known[answer.sha256] for key, answer in other.answers.items() if answer.sha256 in known}

"""Answers a benchmark's items with a bundle, and goes on where an earlier run ended."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import msgspec

from ....engine.errors import BenchmarkError, ContentRefused, ImageError, NotFiniteError, RequestError
from ....engine.progress import Progress, Silent
from ....engine.system.files import sha256_file
from ....runtime.inputs.request import Request, Sampling
from ....runtime.kontext import Kontext
from .layouts import Item
from .records import RESULTS, Answer, Lines, Settings, held

logger = logging.getLogger(__name__)

ALIKE = 3
"""The number of items in a row that fail in the same words, after which the run ends: it is not about the items."""
ITEM_ERRORS = (ImageError, RequestError, ContentRefused, NotFiniteError)
"""The errors that concern one item, and not the bundle or the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Holds what a folder of results has for the items of a benchmark, by key; `made` counts those of this run."""

    folder: Path
    bundle: str
    executor: str
    settings: Settings
    answers: Mapping[str, Answer]
    failures: Mapping[str, Answer]
    made: int


def item_seed(seed: int, key: str) -> int:
    """Return the seed of an item's noise, of 32 bits: it depends on the run's seed and the key alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode(errors="surrogatepass")).digest()[:4], "big")


def settings_of(kontext: Kontext, sampling: Sampling, seed: int) -> Settings:
    """Return what a run's answers are sampled with, a bundle's defaults as numbers."""
    recorded = sampling.recorded(kontext.bundle.manifest.model.flow)
    return msgspec.convert({"seed": seed, **recorded}, Settings)


def run_bench(
    kontext: Kontext,
    items: Sequence[Item],
    folder: Path,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """Answer the items that a folder of results has no answer to yet.

    Each answer is written as CATEGORY/KEY.png and then recorded in results.jsonl, so that a process may end at any
    time. Items that failed are recorded, too, and tried again by the next run.

    Args:
        kontext: The bundle.
        items: What is asked; their keys differ.
        folder: The folder of results; it is made.
        sampling: How answers are sampled, without seeds.
        seed: The seed that items' own are drawn from.
        progress: Who hears of items that are answered.

    Raises:
        BenchmarkError: The folder has answers of another bundle, executor, settings or instructions, another process
            writes into it, or the first items all fail alike.
        KontextError: What `Kontext.run` raises, unless it concerns one item.
    """
    sampling, progress = sampling or Sampling(), progress or Silent()
    runner = _Runner(kontext, folder, sampling, settings_of(kontext, sampling, seed))
    with held(folder):
        lines = Lines(folder / RESULTS, Answer)
        known = {answer.key: answer for answer in lines.read()}
        runner.check(known.values())
        answers, failures = {}, {}
        wanted = [(item, _sha256_or_empty(item.picture)) for item in items]
        missing = []
        for item, reference in wanted:
            kept = known.get(item.key)
            if kept is not None and kept.error is None:
                runner.check_item(item, reference, kept)
                if _intact(folder / kept.file, kept.sha256):
                    answers[item.key] = kept
                    continue
                logger.warning("%s is missing or altered, and is made again", folder / kept.file)
            missing.append((item, reference))
        progress.start("answers", len(missing))
        if missing:
            kontext.load()
        with lines.appending() as log:
            for item, reference in missing:
                answer = runner.answer(item, reference)
                log.add(answer)
                (answers if answer.error is None else failures)[item.key] = answer
                _stop_if_alike(list(failures.values()), answers)
                progress.advance(1)
    ordered = {item.key: answers[item.key] for item in items if item.key in answers}
    return Run(
        folder=folder,
        bundle=runner.bundle,
        executor=kontext.executor.name,
        settings=runner.settings,
        answers=ordered,
        failures=failures,
        made=len(missing) - len(failures),
    )


class _Runner:
    """Answers items, and says whether earlier answers are of the same run."""

    def __init__(self, kontext: Kontext, folder: Path, sampling: Sampling, settings: Settings) -> None:
        self._kontext, self._folder, self._sampling = kontext, folder, sampling
        self.settings = settings
        self.bundle = kontext.bundle.fingerprint

    def check(self, known: Iterable[Answer]) -> None:
        """Raise BenchmarkError if an earlier answer is of another bundle, executor or sampling."""
        for answer in known:
            found = _described(answer.bundle, answer.executor, answer.settings)
            asked = _described(self.bundle, self._kontext.executor.name, self.settings)
            unlike = [f"{name} {found[name]} instead of {asked[name]}" for name in asked if found[name] != asked[name]]
            if unlike:
                raise BenchmarkError(
                    f"{self._folder} has answers with {', '.join(unlike)}; ask for the same, or take another --out"
                )

    def check_item(self, item: Item, reference: str, kept: Answer) -> None:
        """Raise BenchmarkError if an item's earlier answer is to another question."""
        for what, found, asked in (
            ("instruction", kept.prompt_sha256, _sha256(item.instruction)),
            ("picture", kept.reference_sha256, reference),
            ("category", kept.category, item.category),
            ("place", kept.file, item.file),
        ):
            if found != asked:
                raise BenchmarkError(
                    f"{self._folder} has an answer for {item.key!r} whose {what} is another one than the benchmark's "
                    "now; take another --out"
                )

    def answer(self, item: Item, reference: str) -> Answer:
        """Make an item's picture and write it, or say why there is none."""
        seed = item_seed(self.settings.seed, item.key)
        answer = Answer(
            key=item.key,
            category=item.category,
            seed=seed,
            bundle=self.bundle,
            executor=self._kontext.executor.name,
            settings=self.settings,
            prompt_sha256=_sha256(item.instruction),
            reference_sha256=reference,
        )
        file = self._folder / item.file
        try:
            sampling = replace(self._sampling, seed=seed)
            result = self._kontext.run(Request(prompt=item.instruction, image=item.picture, sampling=sampling))
        except ITEM_ERRORS as error:
            logger.info("%s: %s", item.key, error)
            return replace(answer, error=f"{type(error).__name__}: {error}")
        result.save(file)
        return replace(
            answer, file=item.file, sha256=sha256_file(file), size=result.size, ms=result.milliseconds["total"]
        )


def _described(bundle: str, executor: str, settings: Settings) -> dict[str, object]:
    sampled = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {"bundle": bundle[:12], "executor": executor, **sampled}


def _stop_if_alike(failures: Sequence[Answer], answers: Mapping[str, Answer]) -> None:
    """Raise BenchmarkError if nothing but failures in the same words has come so far."""
    if len(failures) == ALIKE and not answers and len({failure.error for failure in failures}) == 1:
        raise BenchmarkError(f"the first {ALIKE} items failed in the same way: {failures[0].error}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _sha256_or_empty(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError:  # a picture that has gone meanwhile fails by itself
        return ""


def _intact(path: Path, sha256: str) -> bool:
    return _sha256_or_empty(path) == sha256

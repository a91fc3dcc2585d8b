"""Judges answers by asking somebody about several at once, and keeps what was said of each."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ....engine.errors import BenchmarkError, ImageError
from ....engine.progress import Progress, Silent
from .judge import Heard, Judge, JudgeOptions
from .layouts import Item
from .records import Answer, Lines, held
from .verdicts import FORM, Marks, data_url, question

VERDICTS = "judge.jsonl"
UNREACHABLE = 3
"""The number of questions that find nobody, before any was answered, after which no more are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Holds what a judge said of one answer.

    Attributes:
        key: The item's key.
        category: Its category.
        sha256: The hash of the answer's file.
        model: The model that judged.
        form: The name of the question; see `FORM`.
        marks: The marks; None if none came.
        raw: The last answer, as it was.
        attempts: How often it was asked.
        faults: The attempts that failed, by kind.
        error: The words of the last failure; None if there are marks.
    """

    key: str
    category: str
    sha256: str
    model: str
    form: str
    marks: Marks | None
    raw: str
    attempts: int
    faults: dict[str, int] = field(default_factory=dict)
    error: str | None = None


def judge_answers(
    folder: Path,
    items: Sequence[Item],
    answers: Mapping[str, Answer],
    options: JudgeOptions,
    progress: Progress | None = None,
) -> dict[str, Judged]:
    """Return by key what a judge says of the answers in a folder of results.

    What the same model has said of the same files before, asked in the same words, is taken from judge.jsonl there; the
    rest is asked and added, questions that got no marks included, which the next run asks again.

    Args:
        folder: The folder of results.
        items: The questions that the answers are to.
        answers: The answers by key.
        options: Who judges.
        progress: Who hears of answers that are judged.

    Raises:
        BenchmarkError: The judge cannot be reached or refuses every question, or another process writes there.
    """
    progress = progress or Silent()
    lines = Lines(folder / VERDICTS, Judged)
    with held(folder):
        known = known_verdicts(folder, options.model)
        found: dict[str, Judged] = {}
        missing: list[Item] = []
        for item in items:
            if item.key not in answers:
                continue
            kept = known.get(answers[item.key].sha256)
            if kept is not None:
                found[item.key] = kept
            else:
                missing.append(item)
        progress.start("judging", len(missing))
        with lines.appending() as log:
            reached = False
            for item, heard in _ask_all(folder, missing, answers, options):
                answer = answers[item.key]
                verdict = Judged(
                    key=item.key,
                    category=item.category,
                    sha256=answer.sha256,
                    model=options.model,
                    form=FORM,
                    marks=heard.marks,
                    raw=heard.raw,
                    attempts=heard.attempts,
                    faults=dict(heard.faults),
                    error=heard.error,
                )
                log.add(verdict)
                found[item.key] = verdict
                progress.advance(1)
                reached = reached or heard.marks is not None or set(heard.faults) != {"connection"}
                if not reached and len(found) == UNREACHABLE:
                    raise BenchmarkError(f"the first {UNREACHABLE} questions found no judge: {heard.error}")
    return {item.key: found[item.key] for item in items if item.key in found}


def known_verdicts(folder: Path, model: str) -> dict[str, Judged]:
    """Return what a model has said in this question's words, by the hash of the answer; without what failed.

    Raises:
        BenchmarkError: A line is none of ours.
    """
    lines = Lines(folder / VERDICTS, Judged).read()
    return {one.sha256: one for one in lines if one.marks is not None and (one.model, one.form) == (model, FORM)}


def count_faults(verdicts: Mapping[str, Judged]) -> dict[str, int]:
    """Return how many attempts failed, by kind."""
    counts: Counter[str] = Counter()
    for verdict in verdicts.values():
        counts.update(verdict.faults)
    return dict(counts)


def _ask_all(
    folder: Path, items: Sequence[Item], answers: Mapping[str, Answer], options: JudgeOptions
) -> Iterator[tuple[Item, Heard]]:
    """Yield what is heard as it comes.

    The threads are daemons: an interrupt waits for no answer.
    """
    judge, waiting = Judge(options), iter(items)
    lock = threading.Lock()
    done: queue.SimpleQueue[tuple[Item, Heard | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        while True:
            with lock:
                item = next(waiting, None)
            if item is None:
                return
            try:
                done.put((item, _ask(judge, item, folder / answers[item.key].file)))
            except BaseException as error:  # it is raised where the answers are waited for
                done.put((item, error))
                return

    for _ in range(min(options.workers, len(items))):
        threading.Thread(target=work, name="judge", daemon=True).start()
    try:
        for _ in items:
            item, heard = done.get()
            if isinstance(heard, BaseException):
                raise heard
            yield item, heard
    finally:
        waiting = iter(())
        judge.stop()


def _ask(judge: Judge, item: Item, answer: Path) -> Heard:
    try:
        pictures = data_url(item.picture), data_url(answer)
    except ImageError as error:
        return Heard(marks=None, raw="", attempts=0, faults={}, error=str(error))
    return judge.ask(question(item.instruction), pictures)

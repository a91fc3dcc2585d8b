"""Draws answers on sheets: reference, request, answer and known answer in a row, each marked right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ...sheets import Cell, Column, Sheet, Table
from .evaluation import Answer, Evaluation
from .render import Pixels
from .samples import EditSample
from .scoring import ALLOWED, WINDOW, word_of

PICTURE = 160
"""The width of a column of pictures: those of the small world have 160 pixels at their longer side."""
REQUEST = 190
ACROSS, PAGE_ROWS = 2, 20
COLUMNS = (
    Column(head="reference", width=PICTURE),
    Column(head="request", width=REQUEST),
    Column(head="answer", width=PICTURE),
    Column(head="known answer", width=PICTURE),
)
LEGEND = (
    f"right: less than {100 * ALLOWED:.0f} % of any {WINDOW}x{WINDOW} pixels differ visibly from the known answer, and "
    "words on signs read as they should"
)


def contact_sheets(made: Evaluation, bundle: str) -> list[Sheet]:
    """Return pages of all answers, in the order of their numbers.

    Args:
        made: The answers.
        bundle: What the sheets call the bundle.
    """
    right = sum(answer.score.success for answer in made.answers)
    return _pages(made, made.answers, f"EditBench, answers of {bundle}: {right} of {len(made.answers)} are right")


def failure_sheets(made: Evaluation, bundle: str) -> list[Sheet]:
    """Return pages of the wrong answers alone, none if all are right; arguments are as of `contact_sheets`."""
    wrong = [answer for answer in made.answers if not answer.score.success]
    if not wrong:
        return []
    return _pages(made, wrong, f"EditBench, wrong answers of {bundle}: {len(wrong)} of {len(made.answers)}")


def _pages(made: Evaluation, answers: Sequence[Answer], title: str) -> list[Sheet]:
    per_page = ACROSS * PAGE_ROWS
    starts = range(0, len(answers), per_page)
    return [
        Sheet(
            title=title if len(starts) == 1 else f"{title} (page {number} of {len(starts)})",
            notes=(describe(made.bundle, made.executor, made.steps, made.seed), LEGEND),
            tables=(Table(columns=COLUMNS, rows=tuple(map(_row, answers[start : start + per_page])), across=ACROSS),),
        )
        for number, start in enumerate(starts, 1)
    ]


def describe(bundle: str, executor: str, steps: int, seed: int) -> str:
    """Return a sheet's note on what pictures were made with."""
    return f"bundle {bundle[:12]}, by {executor}, {steps} steps, noise of seed {seed}"


def _row(one: Answer) -> tuple[Cell, ...]:
    sample = one.case.sample
    words = f"{one.case.number}. {sample.instruction}"
    return answer_row(sample, one.picture, words=words, right=one.score.success, reason=_reason(one))


def answer_row(
    sample: EditSample, picture: Pixels, *, words: str, right: bool, reason: str = ""
) -> tuple[Cell, Cell, Cell, Cell]:
    """Return a sample's cells of `COLUMNS`.

    Args:
        sample: The request and its known answer.
        picture: The answer (H, W, 3) uint8.
        words: What stands for the request.
        right: Whether the answer is right.
        reason: Why it is wrong.
    """
    reference = sample.reference()
    return (
        Cell(words="none: from text alone") if reference is None else Cell(picture=as_picture(reference)),
        Cell(words=words),
        Cell(picture=as_picture(picture), right=right, words=reason),
        Cell(picture=as_picture(sample.target())),
    )


def _reason(one: Answer) -> str:
    """Return why an answer is wrong, "" for a right one."""
    score, word = one.score, word_of(one.case.sample.edit.after)
    if score.success:
        return ""
    if score.wrong > ALLOWED:
        return f"{100 * score.wrong:.0f} % differ at worst"
    return f'reads "{score.read}", not "{word}"'


def as_picture(pixels: Pixels) -> Image.Image:
    """Return pixels (H, W, 3) uint8 as a picture."""
    return Image.fromarray(pixels)

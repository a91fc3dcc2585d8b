"""Filters of a Kontext: what each is shown and when, that a failing one refuses, and that nothing leaves or stays."""

from __future__ import annotations

import contextlib
import gc
import logging
import pickle
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from few_descriptors import cycles_of_this_block
from PIL import Image

from kontext_trt import (
    Content,
    ContentRefused,
    Kontext,
    KontextError,
    Latents,
    OptionError,
    Request,
    RequestError,
    Sampling,
    Stage,
    Verdict,
)
from kontext_trt.engine.errors import Cancelled

SECRET = "the secret words of a prompt"
FAST = {"steps": 1, "seed": 0}


class Asked:
    """A filter that answers what it is told to, and remembers only what it was asked about."""

    def __init__(self, answer: Callable[[Content], object], *stages: Stage, name: str = "asked") -> None:
        self.name, self.stages = name, frozenset(stages or Stage)
        self._answer = answer
        self.seen: list[tuple[Stage, tuple[int, int] | None]] = []

    def check(self, content: Content) -> Verdict:
        self.seen.append((content.stage, None if content.picture is None else content.picture.size))
        return self._answer(content)  # type: ignore[return-value]


def allow(content: Content) -> Verdict:
    return Verdict(allowed=True)


def refuse(content: Content) -> Verdict:
    return Verdict(allowed=False, reason="not here\n")


def fail(content: Content) -> Verdict:
    raise ValueError(content.prompt)


@pytest.fixture
def screened(kontext: Kontext) -> Callable[..., Kontext]:
    """A Kontext with filters, over the shared one's executor, which stays open."""
    return lambda *filters: Kontext(kontext.bundle, kontext.executor, filters=filters)


def test_what_is_allowed_is_the_same_picture(kontext: Kontext, screened, picture) -> None:
    asked = Asked(allow)
    shown = np.array(picture(100, 80).convert("RGBA"))
    shown[:40, :, 3] = 90
    with_profile = Image.fromarray(shown)
    plain = kontext.edit(with_profile, ["one", "two"], **FAST)
    opened = screened(asked)
    result = opened.edit(with_profile, ["one", "two"], **FAST)
    assert [np.array_equal(a.latents, b.latents) for a, b in zip(plain.outputs, result.outputs, strict=True)] == [
        True
    ] * 2
    made = (Stage.OUTPUT, result.size)
    assert asked.seen == [(Stage.PROMPT, None)] * 2 + [(Stage.INPUT, (100, 80))] + [made] * 2
    assert [(one.stage, one.allowed, one.refused, one.failed) for one in opened.filter_counts] == [
        (Stage.PROMPT, 2, 0, 0),
        (Stage.INPUT, 1, 0, 0),
        (Stage.OUTPUT, 2, 0, 0),
    ]


ANSWERS = [
    (refuse, r"not here\n", False),
    (fail, "it failed, which refuses", True),
    (lambda _: Verdict(allowed=False), "it gives no reason", False),
    (lambda _: True, "it failed, which refuses", True),
    (lambda _: None, "it failed, which refuses", True),
    (lambda _: Verdict(allowed="no"), "it failed, which refuses", True),  # type: ignore[arg-type]
    (lambda _: Verdict(allowed=True, reason=None), "it failed, which refuses", True),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("stage", "answer", "reason", "failed"),
    [(Stage.PROMPT, *one) for one in ANSWERS]
    + [(stage, *one) for stage in (Stage.INPUT, Stage.OUTPUT) for one in ANSWERS[:2]],
)
def test_what_is_refused_does_not_leave(
    screened, picture, caplog: pytest.LogCaptureFixture, stage: Stage, answer, reason: str, failed: bool
) -> None:
    caplog.set_level(logging.DEBUG, "kontext_trt.runtime.filters")
    opened = screened(Asked(allow, Stage.PROMPT, name="first"), Asked(answer, stage))
    with pytest.raises(ContentRefused) as caught:
        opened.edit(picture(64, 64), SECRET, **FAST)
    error = caught.value
    assert str(error) == f"the {stage.value} was refused by the filter 'asked': {reason}"
    assert (error.filter, error.stage, error.failed) == ("asked", stage.value, failed)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
    (logged,) = [record for record in caplog.records if record.name.endswith("screen")]
    assert logged.levelno == (logging.ERROR if failed else logging.INFO)
    assert SECRET not in caplog.text + str(error)
    count = opened.filter_counts[-1]
    assert (count.filter, count.stage, count.allowed, count.refused, count.failed) == (
        "asked",
        stage,
        0,
        1,
        int(failed),
    )


def test_nothing_is_computed_for_a_refused_prompt_or_picture(screened, picture) -> None:
    steps: list[int] = []
    for stage in (Stage.PROMPT, Stage.INPUT):
        with pytest.raises(ContentRefused):
            screened(Asked(refuse, stage)).edit(picture(64, 64), "x", on_step=lambda *at: steps.append(1), **FAST)
    assert steps == []


def test_one_refused_picture_of_several_refuses_all(screened) -> None:
    answers = iter([Verdict(allowed=True), Verdict(allowed=False)])
    with pytest.raises(ContentRefused):
        screened(Asked(lambda _: next(answers), Stage.OUTPUT)).generate("x", steps=1, seed=[1, 2, 3])
    assert list(answers) == []


def test_a_refused_turn_leaves_the_session_as_it_was(screened, picture) -> None:
    answers = iter([Verdict(allowed=True), Verdict(allowed=False), Verdict(allowed=True)])
    asked = Asked(lambda content: next(answers) if content.stage is Stage.OUTPUT else Verdict(allowed=True))
    session = screened(asked).session(picture(64, 64))
    first = session.edit("one", **FAST)
    with pytest.raises(ContentRefused):
        session.edit("two", **FAST)
    assert [turn.number for turn in session.turns] == [1]
    assert session.edit("three", **FAST).parent == first.number


@pytest.mark.check
def test_masked_edits_are_looked_at_whole(screened, picture) -> None:
    asked = Asked(allow, Stage.INPUT, Stage.OUTPUT)
    screened(asked).edit(picture(200, 150), "x", mask=[(20, 20, 60, 60)], crop="mask", **FAST)
    assert asked.seen == [(Stage.INPUT, (200, 150)), (Stage.OUTPUT, (200, 150))]


@pytest.mark.check
def test_latents_are_looked_at_as_their_picture(screened, kontext: Kontext, picture) -> None:
    made = kontext.edit(picture(64, 64), "x", **FAST)
    asked = Asked(allow, Stage.INPUT)
    screened(asked).edit(made.as_reference(), "y", **FAST)
    assert asked.seen == [(Stage.INPUT, made.size)]
    bare = Latents(tokens=made.outputs[0].latents, size=made.size)
    with pytest.raises(RequestError, match="these latents came without theirs"):
        screened(asked).edit(bare, "y", **FAST)
    screened(Asked(allow, Stage.OUTPUT)).edit(bare, "y", **FAST)


def test_what_was_refused_is_not_kept(screened, picture) -> None:
    kept: list[weakref.ref] = []

    def watch(content: Content) -> Verdict:
        kept.append(weakref.ref(content.picture))
        return Verdict(allowed=False)

    opened = screened(Asked(watch, Stage.OUTPUT))
    with cycles_of_this_block():
        with contextlib.suppress(ContentRefused):
            opened.edit(picture(64, 64), "x", **FAST)
        gc.collect()
    assert [one() for one in kept] == [None]


def test_a_cancelled_request_hands_out_nothing(screened) -> None:
    cancel = threading.Event()

    def answer(content: Content) -> Verdict:
        cancel.set()
        return Verdict(allowed=True)

    with pytest.raises(Cancelled, match="looked at the output picture"):
        screened(Asked(answer, Stage.OUTPUT)).run(Request(prompt="x", sampling=Sampling(steps=1)), cancel=cancel)


@pytest.mark.check
def test_a_waiting_filter_holds_nobody_else_up(screened) -> None:
    waits, go = threading.Event(), threading.Event()

    def answer(content: Content) -> Verdict:
        if content.prompt == "slow":
            waits.set()
            go.wait(30)
        return Verdict(allowed=True)

    opened = screened(Asked(answer, Stage.OUTPUT))
    slow = threading.Thread(target=lambda: opened.generate("slow", **FAST))
    slow.start()
    assert waits.wait(30)
    opened.generate("quick", **FAST)
    go.set()
    slow.join()
    assert opened.filter_counts[0].allowed == 2


def test_what_is_no_filter_is_refused(bundle) -> None:
    nowhere = Asked(allow)
    nowhere.stages = frozenset()
    for one, message in (
        ("words", "a filter has name, stages and check, and str has not"),
        (nowhere, r"the stages of the filter 'asked' are some of Stage\.PROMPT, .*, not none"),
    ):
        with pytest.raises(OptionError, match=message):
            Kontext.open(bundle, filters=[one])  # type: ignore[list-item]
    assert issubclass(ContentRefused, KontextError)

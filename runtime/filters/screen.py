"""Asks filters about the prompts and pictures of a request, and counts what they answer."""

from __future__ import annotations

import logging
import threading
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from ...engine.errors import Cancelled, ContentRefused, OptionError, RequestError
from ...engine.printable import printable_line
from ..inputs.pictures import Picture, read_picture
from ..inputs.references import Latents, ReferenceSource
from ..inputs.request import Request
from .interface import Content, ContentFilter, Stage, Verdict

logger = logging.getLogger(__name__)

REASON_LENGTH = 200
"""The most characters of a filter's reason that a message repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterCount:
    """Counts what one filter answered at one stage.

    Attributes:
        filter: The filter's name.
        stage: The stage.
        allowed: How often it let content through.
        refused: How often it refused, its failures included.
        failed: How often it raised, or answered what is no answer, which refuses.
    """

    filter: str
    stage: Stage
    allowed: int = 0
    refused: int = 0
    failed: int = 0


class Screen:
    """Holds filters, asks them one after another, and stops at the first that refuses. Nothing that it saw is kept.

    Args:
        filters: The filters, in the order in which they are asked.

    Raises:
        OptionError: One of them is no filter, or has no stage.
    """

    def __init__(self, filters: Iterable[ContentFilter] = ()) -> None:
        self._held = tuple(map(_Held.of, filters))
        self._lock = threading.Lock()
        self._counts: Counter[tuple[_Held, Stage, str]] = Counter()

    @property
    def counts(self) -> tuple[FilterCount, ...]:
        """The counts of all filters at all their stages since this was made."""
        with self._lock:
            counts = self._counts.copy()
        return tuple(
            FilterCount(
                filter=held.name,
                stage=stage,
                allowed=counts[held, stage, "allowed"],
                refused=counts[held, stage, "refused"],
                failed=counts[held, stage, "failed"],
            )
            for held in self._held
            for stage in Stage
            if stage in held.stages
        )

    def looks_at(self, stage: Stage) -> bool:
        """Return whether any filter is asked at a stage."""
        return any(stage in held.stages for held in self._held)

    def admit(self, request: Request, cancel: threading.Event | None = None) -> Request:
        """Ask about the prompts of a request and its pictures, and return it with the pictures that were looked at.

        Args:
            request: What is asked for. The mask is not looked at: of it only what is marked is used.
            cancel: The request's own event.

        Raises:
            ContentRefused: A filter refuses.
            ImageError: A picture cannot be read.
            RequestError: A filter looks at pictures, and latents came without theirs.
            Cancelled: The event is set.
        """
        for prompt in request.prompts:
            self._ask(Content(stage=Stage.PROMPT, prompt=prompt, cancel=cancel))
        if not self.looks_at(Stage.INPUT) or not request.sources:
            return request
        read = [_read(source) for source in request.sources]
        for _, picture in read:
            self._ask(Content(stage=Stage.INPUT, prompt=request.prompts[0], picture=picture, cancel=cancel))
        return replace(request, image=[source for source, _ in read])

    def release(self, pictures: Sequence[tuple[str, Image.Image]], cancel: threading.Event | None = None) -> None:
        """Ask about pictures that were made, each with its prompt, before any of them is handed out.

        Raises:
            ContentRefused: A filter refuses one; then none of them is handed out.
            Cancelled: The event is set.
        """
        for prompt, picture in pictures:
            self._ask(Content(stage=Stage.OUTPUT, prompt=prompt, picture=picture, cancel=cancel))

    def _ask(self, content: Content) -> None:
        for held in self._held:
            if content.stage in held.stages:
                self._judge(held, content)

    def _judge(self, held: _Held, content: Content) -> None:
        verdict, failure = _answer(held.filter, content)
        if content.cancel is not None and content.cancel.is_set():
            raise Cancelled(f"cancelled while the filter {held.name!r} looked at the {content.stage.value}")
        if verdict is not None and verdict.allowed is True:
            self._count(held, content.stage, "allowed")
            return
        self._count(held, content.stage, "refused")
        if verdict is None:
            self._count(held, content.stage, "failed")
            logger.error("the filter %r failed at the %s, which refuses: %s", held.name, content.stage.value, failure)
            reason = "it failed, which refuses"
        else:
            reason = printable_line(verdict.reason)[:REASON_LENGTH] or "it gives no reason"
            logger.info("the filter %r refused the %s: %s", held.name, content.stage.value, reason)
        raise ContentRefused(
            f"the {content.stage.value} was refused by the filter {held.name!r}: {reason}",
            held.name,
            content.stage.value,
            verdict is None,
        )

    def _count(self, held: _Held, stage: Stage, what: str) -> None:
        with self._lock:
            self._counts[held, stage, what] += 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Held:
    """Holds a filter with what it said of itself when it was given."""

    name: str
    stages: frozenset[Stage]
    filter: ContentFilter

    @classmethod
    def of(cls, one: object) -> _Held:
        """Return a filter that is held. Raises OptionError for what is none."""
        if not isinstance(one, ContentFilter):
            raise OptionError(
                f"a filter has name, stages and check, and {type(one).__name__} has not; see ContentFilter"
            )
        stages = frozenset(one.stages)
        if not stages or not stages <= set(Stage):
            allowed = ", ".join(f"Stage.{stage.name}" for stage in Stage)
            raise OptionError(
                f"the stages of the filter {one.name!r} are some of {allowed}, not {set(stages) or 'none'}"
            )
        return cls(name=str(one.name), stages=stages, filter=one)


def _answer(asked: ContentFilter, content: Content) -> tuple[Verdict | None, str]:
    """Return what a filter answers; None and why if that is no answer, without what an error says of the content."""
    try:
        verdict: object = asked.check(content)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return None, f"{type(error).__name__}{place}"
    if isinstance(verdict, Verdict) and isinstance(verdict.allowed, bool) and isinstance(verdict.reason, str):
        return verdict, ""
    return None, f"it answered {type(verdict).__name__}, not a Verdict"


def _read(source: ReferenceSource) -> tuple[ReferenceSource, Image.Image]:
    """Return a reference that can be read again, and its picture."""
    if not isinstance(source, Latents):
        picture = Image.fromarray(np.asarray(read_picture(cast(Picture, source))))  # no profile to apply once more
        return picture, picture
    if source.image is None:
        raise RequestError(
            "a filter looks at the pictures of requests, and these latents came without theirs; give the picture, or "
            "Latents with its image"
        )
    return source, source.image

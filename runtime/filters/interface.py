"""Defines what a content filter is: what it is shown, and what it answers."""

from __future__ import annotations

import threading
from collections.abc import Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from PIL import Image


class Stage(str, Enum):
    """Says what a filter is shown.

    Attributes:
        PROMPT: Each prompt of a request, before anything is computed.
        INPUT: Each picture of a request as it was given, upright and in mode RGB, before anything is computed.
        OUTPUT: Each picture that was made, before it is handed out.
    """

    PROMPT = "prompt"
    INPUT = "input picture"
    OUTPUT = "output picture"


PICTURES = frozenset({Stage.INPUT, Stage.OUTPUT})
"""The stages at which there is a picture to look at."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """Holds what a filter is to judge. It is the user's: a filter that keeps it, or logs it, has to answer for that.

    Attributes:
        stage: What is judged.
        prompt: The prompt; at the stage of input pictures the request's first.
        picture: The picture in mode RGB, None at the stage of prompts. It is not to be altered.
        cancel: An event that is set once nobody waits for the answer any more; None if nothing sets it.
    """

    stage: Stage
    prompt: str = field(repr=False)
    picture: Image.Image | None = field(default=None, repr=False)
    cancel: threading.Event | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Holds a filter's answer.

    Attributes:
        allowed: Whether the content may be used.
        reason: Why it may not, in words that may be logged and shown to who asked, so nothing of the content itself.
    """

    allowed: bool
    reason: str = ""


ALLOWED = Verdict(allowed=True)
"""The answer for content that nothing speaks against."""


@runtime_checkable
class ContentFilter(Protocol):
    """Judges prompts and pictures. It is called by several threads at once, each with content of its own.

    A filter that raises, or answers anything but a `Verdict`, refuses.
    """

    @property
    def name(self) -> str:
        """The name in messages, logs and counts."""
        ...

    @property
    def stages(self) -> Set[Stage]:
        """The stages at which it is asked."""
        ...

    def check(self, content: Content, /) -> Verdict:
        """Return whether content may be used."""
        ...

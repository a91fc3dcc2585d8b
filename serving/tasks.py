"""Keeps the states of requests that are asked for later, as BFL's protocol does."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from cachetools import TTLCache

from .options import ServingOptions
from .state import Shelf

TASKS_KEPT = 1000
"""The most tasks whose state is kept: a state holds the prompt."""
LOST_SECONDS = 60.0
"""The seconds without a word from its process after which a task counts as lost; one is written every 15."""
SECONDS_BETWEEN_WRITES = 1.0
PENDING = "Pending"


@dataclass(slots=True, kw_only=True)
class Task:
    """Holds the state of one request.

    Attributes:
        status: A state of the protocol: Pending, Ready, Error, Request Moderated or Content Moderated.
        progress: The share of the steps that are taken, 0 to 1.
        result: What the protocol calls the result: where the picture lies, its prompt, seed and times.
        details: What went wrong, in OpenAI's form.
    """

    status: str = PENDING
    progress: float = 0.0
    result: dict[str, Any] | None = None
    details: dict[str, Any] | None = None


class Tasks:
    """Keeps tasks by names in memory, as long as they may run and their results are kept."""

    def __init__(self, options: ServingOptions) -> None:
        self._kept: TTLCache[str, Task] = TTLCache(TASKS_KEPT, _seconds(options))

    def put(self, name: str, task: Task) -> None:
        """Keep a task; what is changed of it later is seen."""
        self._kept[name] = task

    def step(self, name: str, task: Task) -> None:
        """Note that a task has got further."""

    def get(self, name: str) -> Task | None:
        """Return a task, None if there is none any more."""
        return self._kept.get(name)

    def expire(self) -> None:
        """Let go of what was kept long enough."""
        self._kept.expire()


class FiledTasks:
    """Keeps tasks as `Tasks` does, in files that other processes read, too; `put` is called again for each change.

    Args:
        options: How long tasks may run, and results are kept.
        shelf: Where they lie.
    """

    def __init__(self, options: ServingOptions, shelf: Shelf) -> None:
        self._seconds, self._shelf = _seconds(options), shelf
        self._written: TTLCache[str, float] = TTLCache(TASKS_KEPT, self._seconds, timer=time.monotonic)

    def put(self, name: str, task: Task) -> None:
        """Write a task."""
        self._shelf.write(name, msgspec.json.encode(task))

    def step(self, name: str, task: Task) -> None:
        """Note that a task has got further, about once per second. One thread calls this."""
        now = time.monotonic()
        if now - self._written.get(name, 0.0) > SECONDS_BETWEEN_WRITES:
            self._written[name] = now
            self.put(name, task)

    def get(self, name: str) -> Task | None:
        """Return a task, None if there is none any more; one whose process says nothing any more has failed."""
        data = self._shelf.read(name, self._seconds)
        if data is None:
            return None
        task = msgspec.json.decode(data, type=Task)
        if task.status == PENDING and self._shelf.read(name, LOST_SECONDS) is None:
            words = "the process that made this picture has ended; ask again"
            lost = {"message": words, "type": "server_error", "param": None, "code": "lost"}
            return replace(task, status="Error", details=lost)
        return task

    def expire(self) -> None:
        """Let go of what was kept long enough, and of what is too much."""
        self._shelf.trim(self._seconds, count=TASKS_KEPT)


def _seconds(options: ServingOptions) -> float:
    return options.limits.seconds + options.keeping.result_seconds

"""Defines how long work reports that it goes on, without knowing who watches."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears of a task's size when it starts and of every piece done; units are the task's own."""

    def start(self, task: str, total: float) -> None: ...

    def advance(self, amount: float) -> None: ...


class Silent:
    """Ignores what is reported: nobody watches."""

    def start(self, task: str, total: float) -> None:
        pass

    def advance(self, amount: float) -> None:
        pass

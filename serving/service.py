"""Holds what all routes of one server share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from ..runtime.runner import Runner
from .bodies import Bodies
from .desk import Desk
from .filed_desk import FiledDesk
from .filed_sessions import FiledSessions
from .health import Health
from .loras import LoraFolder
from .making import Maker, Observed
from .metrics import Metrics
from .options import ServingOptions
from .results import FiledResults, Results
from .sessions import Sessions
from .state import StateFolder
from .tasks import FiledTasks, Tasks
from .turns import Place, Turns
from .work import Worker

Asked = ParamSpec("Asked")
Kept = TypeVar("Kept")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Holds the parts of one server: what it was set up with, who waits, who makes, and what is kept."""

    runner: Runner
    options: ServingOptions
    health: Health
    bodies: Bodies
    metrics: Metrics
    turns: Turns
    worker: Worker
    maker: Maker
    results: Results | FiledResults
    sessions: Sessions | FiledSessions
    tasks: Tasks | FiledTasks
    loras: LoraFolder

    @classmethod
    def of(cls, runner: Runner, options: ServingOptions) -> Service:
        """Return the parts of a server for a runner, nothing of them begun.

        Raises:
            OptionError: There is no folder of LoRAs where one was said to be, or the folder of state cannot be used.
            BundleError: There are LoRAs, and the bundle takes none.
        """
        metrics, worker, turns = Metrics(options.replica), Worker(), Turns(options.limits.waiting)
        folder, observed = None if options.state is None else StateFolder(options.state), Observed(runner, metrics)
        desk, bodies, health = _desk(metrics, options, folder), Bodies(options.limits), Health(runner)
        maker = Maker(observed, worker, health, desk=desk, hides_previews=options.hides_previews)
        results, sessions, tasks = _kept(observed, options, folder)
        metrics.show("kontext_waiting", "Requests that wait for a turn.", lambda: turns.waiting)
        metrics.show("kontext_running", "Pictures that are being made.", lambda: int(turns.running))
        metrics.show("kontext_admitted", "Requests that run or wait.", lambda: turns.admitted)
        metrics.show("kontext_body_bytes", "Bytes of bodies in memory.", lambda: bodies.held_bytes)
        metrics.show("kontext_result_bytes", "Bytes of pictures with an address.", lambda: results.size_bytes)
        metrics.show("kontext_sessions", "Sessions that are kept.", lambda: len(sessions))
        metrics.show("kontext_session_bytes", "Bytes of sessions.", lambda: sessions.size_bytes)
        metrics.count_filters(lambda: getattr(runner, "filter_counts", ()))
        if desk is not None:
            metrics.show("kontext_review_waiting", "Pictures that wait for a person.", desk.__len__)
        return cls(
            runner=runner,
            options=options,
            health=health,
            bodies=bodies,
            metrics=metrics,
            turns=turns,
            worker=worker,
            maker=maker,
            results=results,
            sessions=sessions,
            tasks=tasks,
            loras=LoraFolder(options.lora_folder, runner.bundle),
        )

    @property
    def name(self) -> str:
        """The model's name for clients."""
        return self.options.name or self.runner.bundle.path.resolve().name

    def admit(self, client: str) -> Place:
        """Admit a request of a client: its place is to be left, as `Turns.admit` says.

        Raises:
            Refusal: As many wait as may (429); the server stops, or has lost what it computes with (503).
        """
        self.health.check()
        return self.turns.admit(client)

    def drain(self) -> None:
        """Take no more requests, and send away those that wait for their first turn."""
        logger.info("stopping: %d requests run or wait", self.turns.admitted)
        self.turns.drain()

    def expire(self) -> None:
        """Let go of what was kept long enough."""
        self.results.expire()
        self.sessions.expire()
        self.tasks.expire()
        if self.maker.desk is not None:
            self.maker.desk.expire()

    async def kept(self, function: Callable[Asked, Kept], *asked: Asked.args, **more: Asked.kwargs) -> Kept:
        """Call a function of what is kept: in a thread where that lies in files, which may take long."""
        if self.options.state is None:
            return function(*asked, **more)
        return await asyncio.to_thread(function, *asked, **more)


def _desk(metrics: Metrics, options: ServingOptions, folder: StateFolder | None) -> Desk | None:
    """Return where pictures wait for a person, None if they do not."""
    if options.review is None:
        return None
    return Desk(options.review, metrics) if folder is None else FiledDesk(options.review, metrics, folder)


def _kept(
    runner: Runner, options: ServingOptions, folder: StateFolder | None
) -> tuple[Results | FiledResults, Sessions | FiledSessions, Tasks | FiledTasks]:
    """Return what keeps results, sessions and tasks: in memory, or in files where there is a folder for them."""
    keeping = options.keeping
    if folder is None:
        return Results(keeping), Sessions(runner, keeping), Tasks(options)
    return (
        FiledResults(keeping, folder.shelf("results")),
        FiledSessions(runner, keeping, folder.shelf("sessions")),
        FiledTasks(options, folder.shelf("tasks")),
    )

"""Holds what all routes of one server share."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..runtime.runner import Runner
from .bodies import Bodies
from .loras import LoraFolder
from .making import Maker
from .metrics import Metrics
from .options import ServingOptions
from .results import Results
from .sessions import Sessions
from .turns import Turns
from .work import Worker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Holds the parts of one server: what it was set up with, who waits, who makes, and what is kept."""

    runner: Runner
    options: ServingOptions
    bodies: Bodies
    metrics: Metrics
    turns: Turns
    worker: Worker
    maker: Maker
    results: Results
    sessions: Sessions
    loras: LoraFolder

    @classmethod
    def of(cls, runner: Runner, options: ServingOptions) -> Service:
        """Return the parts of a server for a runner, nothing of them begun.

        Raises:
            OptionError: There is no folder of LoRAs where one was said to be.
            BundleError: There is, and the bundle takes none.
        """
        metrics, worker, turns = Metrics(), Worker(), Turns(options.limits.waiting)
        maker, results = Maker(runner, metrics, worker), Results(options.keeping)
        sessions, bodies = Sessions(maker.runner, options.keeping), Bodies(options.limits)
        metrics.show("kontext_waiting", "Requests that wait for a turn.", lambda: turns.waiting)
        metrics.show("kontext_running", "Pictures that are being made.", lambda: int(turns.running))
        metrics.show("kontext_admitted", "Requests that run or wait.", lambda: turns.admitted)
        metrics.show("kontext_body_bytes", "Bytes of bodies in memory.", lambda: bodies.held_bytes)
        metrics.show("kontext_result_bytes", "Bytes of pictures with an address.", lambda: results.size_bytes)
        metrics.show("kontext_sessions", "Sessions that are kept.", lambda: len(sessions))
        metrics.show("kontext_session_bytes", "Bytes of sessions.", lambda: sessions.size_bytes)
        return cls(
            runner=runner,
            options=options,
            bodies=bodies,
            metrics=metrics,
            turns=turns,
            worker=worker,
            maker=maker,
            results=results,
            sessions=sessions,
            loras=LoraFolder(options.lora_folder, runner.bundle),
        )

    @property
    def name(self) -> str:
        """The model's name for clients."""
        return self.options.name or self.runner.bundle.path.resolve().name

    def drain(self) -> None:
        """Take no more requests, and send away those that wait for their first turn."""
        logger.info("stopping: %d requests run or wait", self.turns.admitted)
        self.turns.drain()

    def expire(self) -> None:
        """Let go of what was kept long enough."""
        self.results.expire()
        self.sessions.expire()

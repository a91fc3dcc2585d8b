"""The engines of a bundle's components, loaded and released as the residency plan says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from ...engine.components import COMPONENTS
from .cuda import Handle
from .engine import Engine, Engines
from .residency import Residency, ResidencyPlan

logger = logging.getLogger(__name__)


class Components:
    """Hands out engines, loading them when they are first needed.

    `before_release` is called with a component before its engine goes: whatever refers to it must be let go there, and
    the device be done with it.
    """

    def __init__(
        self, engines: Engines, plan: ResidencyPlan, stream: Handle, before_release: Callable[[str], None]
    ) -> None:
        self._engines, self._plan, self._stream = engines, plan, stream
        self._before_release = before_release
        self._loaded: dict[str, Engine] = {}
        self._unrecordable: set[str] = set()

    def ready(self, component: str) -> Engine:
        """Its engine. One that is loaded for its turn ends the turn of the others. Raises what `Engines.open` does."""
        if component not in self._loaded:
            if self._plan.of(component) is Residency.TURN:
                self._end_turns()
            start = time.perf_counter()
            budget = self._plan.streaming_budget if self._plan.of(component) is Residency.STREAMED else None
            self._loaded[component] = self._engines.open(component, self._stream, budget)
            logger.info("%s loaded in %.2f s", component, time.perf_counter() - start)
        return self._loaded[component]

    @property
    def allocates(self) -> bool:
        return self._engines.allocates

    def forget_failure(self) -> None:
        self._engines.forget_failure()

    def keep_out_of_graphs(self, components: Iterable[str]) -> None:
        """They have been tried."""
        self._unrecordable.update(components)

    def stays(self, component: str) -> bool:
        """Whether an engine, once loaded, remains where it is."""
        return self._plan.of(component) is Residency.RESIDENT

    def recordable(self, component: str) -> bool:
        """Whether a graph may record it."""
        engine = self._loaded.get(component)
        capturable = engine is None or engine.capturable
        return self.stays(component) and capturable and component not in self._unrecordable

    def release(self, component: str) -> None:
        engine = self._loaded.get(component)
        if engine is not None:
            self._before_release(component)
            del self._loaded[component]
            engine.close()

    def _end_turns(self) -> None:
        for component in list(self._loaded):
            if self._plan.of(component) is Residency.TURN:
                self.release(component)

    def close(self) -> None:
        for component in COMPONENTS:
            self.release(component)
        self._engines.close()

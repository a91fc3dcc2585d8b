"""Loads, binds and releases the engines of a bundle's components, as the residency plan says."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from ..flow.tensors import RequestShape
from .cuda import Cuda, Handle
from .engine import Bound, Engine, Engines, Shapes
from .graphs import Graphs
from .memory import Arena
from .residency import Residency, ResidencyPlan

logger = logging.getLogger(__name__)


class LoadedEngines:
    """Owns engines, loaded when they are first needed, and what is bound of each for the shapes of requests.

    Before an engine goes, the graphs that recorded it are dropped, and what is bound of it is closed.
    """

    def __init__(
        self, engines: Engines, plan: ResidencyPlan, cuda: Cuda, stream: Handle, graphs: Graphs, arena: Arena
    ) -> None:
        self._engines, self._plan = engines, plan
        self._cuda, self._stream, self._graphs, self._arena = cuda, stream, graphs, arena
        self._loaded: dict[str, Engine] = {}
        self._bound: dict[tuple[RequestShape, str], dict[frozenset[tuple[str, tuple[int, ...]]], Bound]] = {}
        self._unrecordable: set[str] = set()
        self._said: set[str] = set()

    def ready(self, component: str) -> Engine:
        """Return a component's engine. What has no room beside it goes first, and one turn ends another.

        Raises what `Engines.open` does.
        """
        takes_turn = self._plan.of(component) is Residency.TURN and component not in self._loaded
        if takes_turn or not self._plan.fits(component, self._loaded, self._arena.size_bytes):
            beside = self._plan.beside(component)
            for other in [name for name in self._loaded if name not in beside]:
                self.release(other)
        if component not in self._loaded:
            self._arena.shrink(max(0, self._plan.room(component)))
            start = time.perf_counter()
            budget = self._plan.streaming_budget if self._plan.of(component) is Residency.STREAMED else None
            self._loaded[component] = self._engines.open(component, self._stream, budget)
            note = "" if self._loaded[component].capturable else "; no CUDA graph can record it"
            logger.info("%s loaded in %.2f s%s", component, time.perf_counter() - start, note)
        return self._loaded[component]

    def bind(self, shape: RequestShape, component: str, shapes: Shapes) -> Bound:
        """Return a component's engine bound to its `shapes` in requests of a shape; it stays bound until `unbind`.

        References of several sizes are encoded in one request, so a component may be bound to several shapes.

        Raises what `ready` and `Engine.bind` do.
        """
        engine, key = self.ready(component), frozenset(shapes.items())
        bound = self._bound.setdefault((shape, component), {})
        if key not in bound:
            bound[key] = engine.bind(shapes)
        return bound[key]

    def unbind(self, shape: RequestShape) -> None:
        """Close what is bound for requests of a shape. No graph may refer to it any more."""
        for key in [key for key in self._bound if key[0] == shape]:
            self._close_bound(key)

    def _close_bound(self, key: tuple[RequestShape, str]) -> None:
        for bound in self._bound.pop(key).values():
            bound.close()

    @property
    def allocates(self) -> bool:
        return self._engines.allocates

    def forget_failure(self) -> None:
        self._engines.forget_failure()

    def keep_out_of_graphs(self, components: Iterable[str]) -> None:
        """Note that recording these components has failed."""
        self._unrecordable.update(components)

    def stays(self, component: str) -> bool:
        """Return whether an engine, once loaded, remains where it is from request to request."""
        return self._plan.of(component).stays

    def settle(self, shape: RequestShape, components: Iterable[str]) -> None:
        """Release what may not lie beside these components, and make them use the arena as it is now.

        They have run in this shape. A recording of them then changes neither.
        """
        for component in components:
            self.ready(component)
            for bound in self._bound[shape, component].values():
                bound.place(self._arena.place)

    def may_record(self, components: Iterable[str]) -> bool:
        """Return whether a graph may hold these components at all."""
        return all(
            self.stays(component)
            and component not in self._unrecordable
            and (component not in self._loaded or self._loaded[component].capturable)
            for component in components
        )

    def recordable_now(self, shape: RequestShape, components: Iterable[str]) -> bool:
        """Return whether what is bound of these components may be recorded at this moment.

        What the library keeps out is said once: it is asked when the same work has run before, kernels and all.
        """
        refused = [
            name
            for name in components
            if not all(bound.recordable(self._stream) for bound in self._bound[shape, name].values())
        ]
        news = sorted(set(refused) - self._said)
        self._said.update(news)
        if news:
            logger.warning(
                "%s: the library lets no CUDA graph record it now; it is enqueued call by call", ", ".join(news)
            )
        return not refused

    def release(self, component: str) -> None:
        """Release a component's engine, if it is loaded, and all that refers to it."""
        engine = self._loaded.get(component)
        if engine is None:
            return
        self._cuda.synchronize(self._stream)
        self._graphs.drop(component=component)
        for key in [key for key in self._bound if key[1] == component]:
            self._close_bound(key)
        del self._loaded[component]
        engine.close()

    def close(self) -> None:
        for component in list(self._loaded):
            self.release(component)
        self._engines.close()

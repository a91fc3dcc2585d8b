"""Defines what the flow needs of whoever runs the components."""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, ParamSpec, Protocol, TypeVar

from .kept import KeptValues
from .stages import Stage
from .tensors import RequestShape
from .workspace import Array, Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """Holds what came of some stages: the tensors asked for, on the host, and the milliseconds that each stage took."""

    outputs: Mapping[str, Array]
    milliseconds: tuple[float, ...]


class Executor(Protocol):
    """Runs the components of one bundle. It is not safe for concurrent use: the Kontext that owns it takes turns."""

    @property
    def name(self) -> str:
        """The executor and its device, for people: "onnxruntime (cpu)"."""
        ...

    @property
    def lost(self) -> str:
        """The reason that it can run nothing any more, although nobody closed it; "" while it can."""
        ...

    def perform(
        self, shape: RequestShape, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Performed:
        """Write `inputs` into the tensors of a request shape, run the stages in order, and read `outputs`.

        The tensors keep their values until a call with another shape, so that a request can run in parts.

        Raises RequestError for a shape that the engines do not take, ExecutorError if a stage fails; the executor is
        usable afterwards unless the error says that it is not.
        """
        ...

    def keep(self, values: KeptValues) -> None:
        """Give the inputs that stay from request to request other values, and let what was recorded read them.

        Raises ExecutorError if there is no memory for them; they are then not known.
        """
        ...

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one component alone, from host arrays to host arrays. Raises ExecutorError, naming the component.

        `inputs` are those that requests give; the others are as they were kept.
        """
        ...

    def load(self, component: str) -> None:
        """Make a component ready to run, if it is not."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is allowed."""
        ...


Kept = TypeVar("Kept", bound=Workspace)
Taken = TypeVar("Taken", contravariant=True)
Given = ParamSpec("Given")
Returned = TypeVar("Returned")


class LastWorkspace(Generic[Kept]):
    """Keeps the workspace of the last request shape, which `make` makes."""

    def __init__(self, make: Callable[[RequestShape], Kept]) -> None:
        self._make = make
        self._kept: Kept | None = None

    def of(self, shape: RequestShape) -> Kept:
        """Return the workspace of a shape. Another shape's goes first, so that there is memory for one."""
        if self._kept is None or self._kept.shape != shape:
            self._kept = None
            self._kept = self._make(shape)
        return self._kept

    def clear(self) -> None:
        """Let go of the workspace."""
        self._kept = None


def weakly(method: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Return a function that calls a method without keeping its object.

    What an executor keeps must not keep the executor: one that is forgotten, not closed, then lets go of its files and
    memory at once, and not whenever cycles are looked for.
    """
    reference = weakref.WeakMethod(method)

    def call(*arguments: Given.args, **named: Given.kwargs) -> Returned:
        found = reference()
        assert found is not None, "it is called by what the object keeps"
        return found(*arguments, **named)

    return call


class RunsIn(Protocol[Taken]):
    """Runs in a workspace."""

    def run(self, w: Taken, /) -> None: ...


def run_in_turn(stages: Sequence[RunsIn[Taken]], workspace: Taken) -> tuple[float, ...]:
    """Run stages that compute at once, one after another, and return the milliseconds that each took."""
    times = [time.perf_counter()]
    for stage in stages:
        stage.run(workspace)
        times.append(time.perf_counter())
    return tuple(1e3 * (end - start) for start, end in itertools.pairwise(times))

"""Runs the whole transformer in each step, as it would be without hoisting: to measure what that saves.

The executor wraps another and replaces stages: nothing is conditioned beforehand, and each step runs the conditioner
with its own timestep. Everything else is the other's: tensors, graphs, timing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from ...engine.components import DENOISER
from ...runtime.flow.executor import Executor, Performed
from ...runtime.flow.kept import KeptValues
from ...runtime.flow.stages import Condition, Stage, Step
from ...runtime.flow.tensors import RequestShape
from ...runtime.flow.workspace import Array, Workspace


@dataclass(frozen=True, slots=True)
class GatherConditions:
    """Makes the copies of `Condition`, without its network."""

    name: ClassVar[str] = "condition"
    components: ClassVar[tuple[str, ...]] = ()

    def run(self, w: Workspace) -> None:
        Condition().run(_CopiesOnly(w))


@dataclass(frozen=True, slots=True)
class UndividedStep:
    """Runs the conditioner with one timestep, then the step.

    Steps run in order: each puts its timestep where the first one's was, at an address that every executor takes.
    """

    index: int
    name: ClassVar[str] = "denoise"
    components: ClassVar[tuple[str, ...]] = (*Condition.components, DENOISER.name)

    def run(self, w: Workspace) -> None:
        row = slice(self.index, self.index + 1)
        timestep = w["timesteps"][0:1]
        if self.index:
            w.copy(w["timesteps"][row], to=timestep)
        w.run(
            "conditioner",
            {
                "timesteps": timestep,
                "guidance": w["guidance"],
                "pooled": w["pooled"],
                "text": w["text"],
                "reference": w["references"],
            },
            {
                "modulation": w["modulation"][row],
                "text_tokens": w["text_tokens"],
                "reference_tokens": w["reference_tokens"],
            },
        )
        Step(self.index).run(w)


class _CopiesOnly:
    """Stands in the place of a workspace, and runs nothing."""

    def __init__(self, inner: Workspace) -> None:
        self._inner = inner

    @property
    def shape(self) -> RequestShape:
        return self._inner.shape

    def __getitem__(self, name: str) -> Any:
        return self._inner[name]

    def __contains__(self, name: str) -> bool:
        return name in self._inner

    def run(self, component: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Do nothing."""

    def copy(self, source: Any, to: Any) -> None:
        self._inner.copy(source, to)


def _undivided(stage: Stage) -> Stage:
    if isinstance(stage, Condition):
        return cast(Stage, GatherConditions())
    return cast(Stage, UndividedStep(stage.index)) if isinstance(stage, Step) else stage


class UndividedExecutor:
    """Implements `Executor` over another one.

    It must be the only user of the one that it wraps, whose engines may be bound to one timestep.
    """

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.name = f"{inner.name}, undivided"

    @property
    def lost(self) -> str:
        return self._inner.lost

    def perform(
        self, shape: RequestShape, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Performed:
        return self._inner.perform(shape, [_undivided(stage) for stage in stages], inputs, outputs)

    def keep(self, values: KeptValues) -> None:
        self._inner.keep(values)

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._inner.run(component, inputs)

    def load(self, component: str) -> None:
        self._inner.load(component)

    def close(self) -> None:
        self._inner.close()

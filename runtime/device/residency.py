"""Decides, from a budget in bytes, what stays on the GPU, what is loaded for its turn and what streams.

A plan is computed from sizes alone, before anything is allocated, and by time: for each network, which others may be
loaded while it runs. What never runs together need not lie together, and the activations of one need no room while
another is loaded. Of all plans that fit the budget, it is the one that moves the fewest bytes in two requests, one of
a new prompt and one of a prompt that is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product

from ...engine.byte_sizes import human_bytes
from ...engine.errors import BudgetError


class Residency(str, Enum):
    """Says where a component's weights lie, and when they come to the device.

    Attributes:
        RESIDENT: The weights are loaded once.
        YIELDING: The weights stay from request to request, but make room for components that are loaded for their turn.
        TURN: The weights are loaded when a request needs them, and released for the next such component, or for one
            that needs their room.
        STREAMED: The weights lie on the host and come in parts at every run; TensorRT does that for plans built with
            --weight-streaming.
    """

    RESIDENT = "resident"
    YIELDING = "yielding"
    TURN = "turn"
    STREAMED = "streamed"

    @property
    def stays(self) -> bool:
        """True if the component is loaded between requests, all of it on the device."""
        return self in (Residency.RESIDENT, Residency.YIELDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Counts the bytes on the device that a component takes while it is loaded, and while it runs.

    `streamable` of the weights may stay on the host. `runs` is how often a request runs it. What runs `per_prompt` is
    not run by a request whose prompt is remembered.
    """

    weights: int
    activations: int
    streamable: int = 0
    runs: int = 1
    per_prompt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyPlan:
    """Says what becomes of each component.

    `peak` is the most that is allocated at a time. `moved` are the weights that a request without a cached prompt or
    picture copies to the device, `moved_again` those of one with a cached prompt. All are in bytes; `fixed` are buffers
    and graphs.
    """

    residencies: Mapping[str, Residency]
    costs: Mapping[str, Cost]
    fixed: int
    budget: int
    streaming_budget: int = 0

    def of(self, component: str) -> Residency:
        return self.residencies[component]

    def beside(self, component: str) -> frozenset[str]:
        """Return what may be loaded while a component runs, itself included.

        Beside what is loaded for its turn, as much of what yields stays as fits, the largest first.
        """
        staying = {name for name, residency in self.residencies.items() if residency is not Residency.TURN}
        if self.of(component) is not Residency.TURN:
            return frozenset(staying)
        yielding = [name for name in staying if self.of(name) is Residency.YIELDING]
        together = staying.difference(yielding) | {component}
        for name in sorted(yielding, key=lambda one: -self.costs[one].weights):
            if self._used({*together, name}) + self.costs[component].activations <= self.budget:
                together.add(name)
        return frozenset(together)

    def fits(self, component: str, loaded: Iterable[str], arena: int) -> bool:
        """Return whether a component can run while these and itself are loaded and so many bytes of arena are there."""
        return self._used({*loaded, component}) + max(arena, self.costs[component].activations) <= self.budget

    def room(self, component: str) -> int:
        """Return the bytes that activations may take while a component is loaded and runs; less than 0 if it cannot."""
        return self.budget - self._used(self.beside(component))

    def _used(self, loaded: Iterable[str]) -> int:
        return self.fixed + sum(self._weights(name) for name in loaded)

    def _weights(self, component: str) -> int:
        cost = self.costs[component]
        if self.of(component) is Residency.STREAMED:
            return cost.weights - cost.streamable + self.streaming_budget
        return cost.weights

    @property
    def least(self) -> int:
        """The smallest budget with which the same stay and take turns."""
        return max(self._used(self.beside(name)) + cost.activations for name, cost in self.costs.items())

    @property
    def peak(self) -> int:
        return self._allocated(self.fullest)

    @property
    def fullest(self) -> str:
        """The component in whose run the most is allocated."""
        return max(self.costs, key=self._allocated)

    def _allocated(self, component: str) -> int:
        """Return what is allocated while a component runs; the arena stays as large as it grew if there is room."""
        arena = max(self.costs[component].activations, min(self.arena, self.room(component)))
        return self._used(self.beside(component)) + arena

    @property
    def arena(self) -> int:
        return max(cost.activations for cost in self.costs.values())

    @property
    def moved(self) -> int:
        return self._moved(self.costs)

    @property
    def moved_again(self) -> int:
        return self._moved([name for name, cost in self.costs.items() if not cost.per_prompt])

    def _moved(self, running: Iterable[str]) -> int:
        """Return the bytes that come to the device in a request that runs these components, after one like it."""
        running = list(running)
        turns = [self.beside(name) for name in running if self.of(name) is Residency.TURN]
        total = 0
        for name in running:
            cost = self.costs[name]
            if self.of(name) is Residency.STREAMED:
                total += (cost.streamable - self.streaming_budget) * cost.runs
            elif self.of(name) is Residency.TURN or any(name not in beside for beside in turns):
                total += cost.weights
        return total

    def describe(self) -> list[str]:
        """Return one line per component, and the sum."""
        lines = [
            f"{name:12} {human_bytes(self.costs[name].weights):>9}  {self._said(name)}" for name in self.residencies
        ]
        arena = f" and activations up to {human_bytes(self.arena)}" if self.arena else ""
        total = (
            f"{'buffers':12} {human_bytes(self.fixed):>9}{arena}; at most {human_bytes(self.peak)} of "
            f"{human_bytes(self.budget)} at a time"
        )
        moved = f", {human_bytes(self.moved)} loaded per request" if self.moved else ""
        again = f", {human_bytes(self.moved_again)} with a prompt that is remembered" if self.moved else ""
        return [*lines, total + moved + again]

    def _said(self, component: str) -> str:
        residency = self.of(component)
        if residency is Residency.STREAMED:
            return f"{residency.value}, {human_bytes(self.streaming_budget)} of it kept"
        if residency is Residency.YIELDING:
            turns = [name for name in self.costs if self.of(name) is Residency.TURN]
            return f"resident, but in the turn of {' and '.join(t for t in turns if component not in self.beside(t))}"
        return residency.value


def plan_residency(costs: Mapping[str, Cost], *, fixed: int, budget: int) -> ResidencyPlan:
    """Choose, of all plans that fit a budget, the one that moves the fewest bytes: with a new prompt and without.

    Raises BudgetError, with the smallest budget that works, if nothing fits.
    """
    plans = (_with_streaming(plan) for plan in _plans(costs, fixed, budget))
    fitting = [plan for plan in plans if plan.least <= budget]
    if not fitting:
        least = least_budget(costs, fixed=fixed)
        raise BudgetError(
            f"{human_bytes(budget)} of GPU memory are too little for this bundle: it needs at least "
            f"{human_bytes(least)} ({least:,} bytes), with every network loaded for its turn"
        )
    return min(fitting, key=lambda plan: (plan.moved + plan.moved_again, plan.moved, plan.peak))


def least_budget(costs: Mapping[str, Cost], *, fixed: int) -> int:
    """Return the smallest budget, in bytes, for which there is a plan."""
    return min(plan.least for plan in _plans(costs, fixed, 0))


def everything_resident(
    costs: Mapping[str, Cost], *, fixed: int, budget: int, but_for: Iterable[str] = ()
) -> ResidencyPlan:
    """Return the plan without a limit. Components `but_for` are loaded for their turn."""
    turns = dict.fromkeys(but_for, Residency.TURN)
    residencies = dict.fromkeys(costs, Residency.RESIDENT) | turns
    return ResidencyPlan(residencies=residencies, costs=costs, fixed=fixed, budget=budget)


def _plans(costs: Mapping[str, Cost], fixed: int, budget: int) -> Iterator[ResidencyPlan]:
    whole = (Residency.RESIDENT, Residency.YIELDING, Residency.TURN)
    choices = [(*whole, Residency.STREAMED) if cost.streamable else whole for cost in costs.values()]
    for chosen in product(*choices):
        # nothing yields where nothing takes turns, nor beside what streams, which takes all the room that is left
        streamed, yields = chosen.count(Residency.STREAMED), Residency.YIELDING in chosen
        if streamed <= 1 and not (yields and (streamed or Residency.TURN not in chosen)):
            yield ResidencyPlan(
                residencies=dict(zip(costs, chosen, strict=True)), costs=costs, fixed=fixed, budget=budget
            )


def _with_streaming(plan: ResidencyPlan) -> ResidencyPlan:
    """Return the same with all the room that is left for weights that would stream."""
    for name, residency in plan.residencies.items():
        if residency is Residency.STREAMED:
            left = max(0, plan.budget - plan.least)
            return replace(plan, streaming_budget=min(plan.costs[name].streamable, left))
    return plan

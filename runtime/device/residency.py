"""Decides, from a budget in bytes, what stays on the GPU, what is loaded for its turn and what streams.

A plan is computed from sizes alone, before anything is allocated. Of all that fit the budget, it is the one that moves
the fewest bytes per request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import product

from ...engine.byte_sizes import human_bytes
from ...engine.errors import BudgetError


class Residency(str, Enum):
    """Says where a component's weights lie, and when they come to the device.

    Attributes:
        RESIDENT: The weights are loaded once.
        TURN: The weights are loaded when a request needs them, and released for the next component that needs a turn.
        STREAMED: The weights lie on the host and come in parts at every run; TensorRT does that for plans built with
            --weight-streaming.
    """

    RESIDENT = "resident"
    TURN = "turn"
    STREAMED = "streamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Counts the bytes on the device that a component takes while it is loaded, and while it runs.

    `streamable` of the weights may stay on the host. `runs` is how often a request runs it.
    """

    weights: int
    activations: int
    streamable: int = 0
    runs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyPlan:
    """Says what becomes of each component.

    `peak` is the most that is allocated at a time, `moved` the weights that a request without a cached prompt or
    picture copies to the device, both in bytes; `fixed` are buffers and graphs.
    """

    residencies: Mapping[str, Residency]
    costs: Mapping[str, Cost]
    fixed: int
    budget: int
    peak: int
    moved: int
    streaming_budget: int

    def of(self, component: str) -> Residency:
        return self.residencies[component]

    @property
    def arena(self) -> int:
        return max(cost.activations for cost in self.costs.values())

    def describe(self) -> list[str]:
        """Return one line per component, and the sum."""
        lines = [
            f"{name:12} {human_bytes(self.costs[name].weights):>9}  {residency.value}"
            + (f", {human_bytes(self.streaming_budget)} of it kept" if residency is Residency.STREAMED else "")
            for name, residency in self.residencies.items()
        ]
        arena = f" and activations {human_bytes(self.arena)}" if self.arena else ""
        total = (
            f"{'buffers':12} {human_bytes(self.fixed):>9}{arena}; at most {human_bytes(self.peak)} of "
            f"{human_bytes(self.budget)} at a time"
        )
        moved = f", {human_bytes(self.moved)} loaded per request" if self.moved else ""
        return [*lines, total + moved]


def plan_residency(costs: Mapping[str, Cost], *, fixed: int, budget: int) -> ResidencyPlan:
    """Choose, of all plans that fit a budget, the one that moves the fewest bytes per request.

    Raises BudgetError, with the smallest budget that works, if nothing fits.
    """
    plans = list(_plans(costs, fixed, budget))
    fitting = [plan for plan in plans if plan.peak <= budget]
    if not fitting:
        least = least_budget(costs, fixed=fixed)
        raise BudgetError(
            f"{human_bytes(budget)} of GPU memory are too little for this bundle: it needs at least "
            f"{human_bytes(least)} ({least:,} bytes), with every network loaded for its turn"
        )
    return min(fitting, key=lambda plan: (plan.moved, plan.peak))


def least_budget(costs: Mapping[str, Cost], *, fixed: int) -> int:
    """Return the smallest budget, in bytes, for which there is a plan."""
    return min(plan.peak for plan in _plans(costs, fixed, 0))


def everything_resident(
    costs: Mapping[str, Cost], *, fixed: int, budget: int, but_for: Iterable[str] = ()
) -> ResidencyPlan:
    """Return the plan without a limit. Components `but_for` are loaded for their turn."""
    turns = dict.fromkeys(but_for, Residency.TURN)
    return _plan(dict.fromkeys(costs, Residency.RESIDENT) | turns, costs, fixed, budget)


def _plans(costs: Mapping[str, Cost], fixed: int, budget: int) -> Iterator[ResidencyPlan]:
    choices = [tuple(Residency) if cost.streamable else (Residency.RESIDENT, Residency.TURN) for cost in costs.values()]
    for chosen in product(*choices):
        if chosen.count(Residency.STREAMED) <= 1:
            yield _plan(dict(zip(costs, chosen, strict=True)), costs, fixed, budget)


def _plan(residencies: Mapping[str, Residency], costs: Mapping[str, Cost], fixed: int, budget: int) -> ResidencyPlan:
    def weights(residency: Residency) -> list[int]:
        return [costs[name].weights for name, chosen in residencies.items() if chosen is residency]

    base = fixed + max(cost.activations for cost in costs.values()) + sum(weights(Residency.RESIDENT))
    turns = weights(Residency.TURN)
    base += max(turns, default=0)
    moved, kept = sum(turns), 0
    for name, chosen in residencies.items():
        if chosen is Residency.STREAMED:
            cost = costs[name]
            base += cost.weights - cost.streamable
            kept = min(cost.streamable, max(0, budget - base))
            base += kept
            moved += (cost.streamable - kept) * cost.runs
    return ResidencyPlan(
        residencies=residencies, costs=costs, fixed=fixed, budget=budget, peak=base, moved=moved, streaming_budget=kept
    )

"""Chooses which of a bundle's plans a machine should run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..bundle.bundle import Bundle
from ..errors import PlanError, UntrustedPlanError
from .coverage import Coverage
from .ingredients import plan_ingredients
from .machine import Machine, mismatches
from .manifest import PlanManifest
from .plan_files import Entry
from .store import PlanStore
from .targets import PORTABLE


def choose_plans(
    store: PlanStore, bundle: Bundle, machine: Machine, components: Iterable[str] | None = None
) -> dict[str, PlanManifest]:
    """Choose a plan per component for a machine; together they can serve some coverage that was built for.

    Plans for the machine's very capability come before portable ones, then a coverage that every component was built
    for before one that some only contain, then the latest.

    Args:
        store: The bundle's plans.
        bundle: The bundle, whose graphs and weights the plans must be made of.
        machine: What the plans are to run on.
        components: The names of the components that need a plan; None for all that the bundle has.

    Returns:
        The chosen plans by component.

    Raises:
        PlanError: There is no such choice; the message says of each plan why it is not the one.
        UntrustedPlanError: Only plans that this user did not sign would do, and the store does not trust them.
    """
    entries = list(store.entries())
    fitting = {
        component: _fitting(store, entries, bundle, component, machine) for component in components or bundle.components
    }
    covered = {plan.ingredients.coverage for plans in fitting.values() for plan in plans}
    choices = [choice for coverage in covered if (choice := _choice(fitting, coverage)) is not None]
    if not choices:
        each = "; ".join(
            f"{component} {' or '.join(plan.ingredients.coverage.describe() for plan in plans)}"
            for component, plans in fitting.items()
        )
        raise PlanError(
            f"the plans of {bundle.path} do not cover anything together: {each}. Build all of them with: "
            f"{_build_command(bundle)}"
        )
    return max(choices, key=lambda choice: choice.rank).plans


@dataclass(frozen=True, slots=True)
class _Choice:
    """Holds plans that serve a coverage; `rank` grows with what speaks for them."""

    plans: dict[str, PlanManifest]
    rank: tuple[int, bool, str, int]


def _choice(fitting: Mapping[str, Sequence[PlanManifest]], coverage: Coverage) -> _Choice | None:
    """Return the best plans that serve a coverage; None if a component has none."""

    def rank(plan: PlanManifest) -> tuple[bool, bool, str]:
        made_for = plan.ingredients
        return made_for.target.capability != PORTABLE, made_for.coverage == coverage, plan.created

    plans: dict[str, PlanManifest] = {}
    for component, offered in fitting.items():
        serving = [plan for plan in offered if plan.ingredients.coverage.contains(coverage)]
        if not serving:
            return None
        plans[component] = max(serving, key=rank)
    ranks = [rank(plan) for plan in plans.values()]
    num_own = sum(own for own, _, _ in ranks)
    oldest = min(created for _, _, created in ranks)
    return _Choice(plans, (num_own, all(exact for _, exact, _ in ranks), oldest, len(coverage.sizes)))


def _fitting(
    store: PlanStore, entries: Iterable[Entry], bundle: Bundle, component: str, machine: Machine
) -> list[PlanManifest]:
    """Return the component's plans that the machine can run.

    Raises:
        PlanError: There is none.
        UntrustedPlanError: There is none that is signed, and the store does not trust others.
    """
    fitting: list[PlanManifest] = []
    others: list[str] = []
    distrust: UntrustedPlanError | None = None
    for entry in entries:
        if entry.component == component:
            reasons = list(_reasons(entry, bundle, machine))
            if entry.manifest is not None and not reasons:
                try:
                    fitting.append(store.check_trust(component, entry.key))
                except UntrustedPlanError as error:
                    distrust = error
                    continue
            others.append(f"{entry.path.name}: {'; '.join(reasons)}")
    if not fitting and distrust is not None:
        raise distrust
    if not fitting:
        found = f" Not usable: {', '.join(others)}." if others else ""
        raise PlanError(
            f"{bundle.path} has no {component} plan for this machine.{found} Build it with: {_build_command(bundle)}"
        )
    return fitting


def _build_command(bundle: Bundle) -> str:
    return f"kontext-trt build {bundle.path} --gpu current"


def _reasons(entry: Entry, bundle: Bundle, machine: Machine) -> Iterator[str]:
    if reason := outdated(entry, bundle):
        yield reason
    elif entry.manifest is not None:
        yield from map(str, mismatches(entry.manifest, machine))
        if entry.manifest.ingredients.options.strip:
            yield "has no weights (--strip), and this runtime does not refit"


def outdated(entry: Entry, bundle: Bundle) -> str:
    """Say why nobody can need a plan any more, whatever the machine; "" if somebody may."""
    if entry.manifest is None:
        return entry.problem
    had = entry.manifest.ingredients
    now = plan_ingredients(bundle, entry.component, had.target, had.coverage, had.options)
    if now.graph_sha256 != had.graph_sha256:
        return "the bundle has another graph now"
    if now.weights != had.weights:
        return "the bundle has other weights now"
    return "" if now.key == had.key else "this version builds such plans otherwise"

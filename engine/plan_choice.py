"""Which of a bundle's plans a machine should run."""

from __future__ import annotations

from collections.abc import Iterator

from .bundle import Bundle
from .coverage import Coverage
from .errors import PlanError
from .ingredients import plan_ingredients
from .machine import Machine, mismatches
from .plan_manifest import PlanManifest
from .plan_store import Entry, PlanStore
from .targets import PORTABLE


def choose_plan(
    store: PlanStore, bundle: Bundle, component: str, machine: Machine, needed: Coverage | None = None
) -> PlanManifest:
    """The plan for a machine: one for its very capability before a portable one, then the latest.

    Only plans that cover what is `needed` count, so that the plans of all components can be chosen to fit together.

    Raises PlanError if there is none, saying of each plan of the component why it is not the one.
    """
    fitting: list[PlanManifest] = []
    others: list[str] = []
    for entry in store.entries():
        if entry.component == component:
            reasons = list(_reasons(entry, bundle, machine, needed))
            if entry.manifest is not None and not reasons:
                fitting.append(entry.manifest)
            others.append(f"{entry.path.name}: {'; '.join(reasons)}")
    if not fitting:
        found = f" Not usable: {', '.join(others)}." if others else ""
        raise PlanError(
            f"{bundle.path} has no {component} plan for this machine.{found} Build it with: kontext-trt build "
            f"{bundle.path} --gpu current"
        )
    return max(fitting, key=lambda plan: (plan.ingredients.target.capability != PORTABLE, plan.created))


def _reasons(entry: Entry, bundle: Bundle, machine: Machine, needed: Coverage | None) -> Iterator[str]:
    if reason := outdated(entry, bundle):
        yield reason
    elif entry.manifest is not None:
        yield from map(str, mismatches(entry.manifest, machine))
        covered = entry.manifest.ingredients.coverage
        if needed is not None and not covered.contains(needed):
            yield f"covers {covered.describe()}, not {needed.describe()}"


def outdated(entry: Entry, bundle: Bundle) -> str:
    """Why nobody can need a plan any more, whatever the machine; "" if somebody may."""
    if entry.manifest is None:
        return entry.problem
    had = entry.manifest.ingredients
    now = plan_ingredients(bundle, entry.component, had.target, had.coverage, had.options)
    if now.graph_sha256 != had.graph_sha256:
        return "the bundle has another graph now"
    if now.weights != had.weights:
        return "the bundle has other weights now"
    return "" if now.key == had.key else "this version builds such plans otherwise"

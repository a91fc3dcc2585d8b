"""The right plan of several, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from compiler_fixtures import COVERAGE
from simulated_tensorrt import MACHINE, add_plans

from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.engine.errors import PlanError
from kontext_trt.engine.plans.choice import choose_plans
from kontext_trt.engine.plans.machine import Machine
from kontext_trt.engine.plans.options import BuildOptions, Refit
from kontext_trt.engine.plans.store import PlanStore

Build = Callable[..., str]
LATER = "2026-11-22T00:00:00Z"


@pytest.fixture
def build(put_clip_plan: Callable[..., Built]) -> Build:
    """Gives the bundle CLIP's plan for a capability, and its key."""
    return lambda capability: put_clip_plan(capability).manifest.key


def _chosen(bundle: Bundle, machine: Machine) -> str:
    return choose_plans(PlanStore.of(bundle.path), bundle, machine, ("clip",))["clip"].key


def test_the_very_gpu_comes_before_the_portable_plan(wide_bundle: Bundle, build: Build, ada_machine: Machine) -> None:
    portable = build("portable")
    assert _chosen(wide_bundle, ada_machine) == portable
    own = build("sm_89")
    build("sm_120")
    assert _chosen(wide_bundle, ada_machine) == own


def test_no_plan_names_the_command(wide_bundle: Bundle, ada_machine: Machine) -> None:
    with pytest.raises(PlanError, match=r"has no clip plan for this machine\. Build it with: kontext-trt build"):
        _chosen(wide_bundle, ada_machine)


def test_no_fitting_plan_says_why_of_each(wide_bundle: Bundle, build: Build, ada_machine: Machine) -> None:
    key = build("sm_120")
    with pytest.raises(PlanError) as refusal:
        _chosen(wide_bundle, ada_machine)
    assert f"{key}.plan: compute capability is sm_120 in the plan and sm_89 here" in str(refusal.value)


def test_a_plan_of_another_graph_is_not_chosen(wide_bundle: Bundle, build: Build, ada_machine: Machine) -> None:
    build("sm_89")
    files = tuple(replace(record, sha256="0" * 64) for record in wide_bundle.manifest.files)
    exported_again = Bundle(path=wide_bundle.path, manifest=replace(wide_bundle.manifest, files=files))
    with pytest.raises(PlanError, match="the bundle has another graph now"):
        _chosen(exported_again, ada_machine)


def test_a_stripped_plan_is_not_run(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    whole = add_plans(bundle, COVERAGE)
    add_plans(bundle, COVERAGE, options=BuildOptions(refit=Refit.FULL, strip=True), created=LATER)
    assert choose_plans(PlanStore.of(bundle.path), bundle, MACHINE) == whole
    for plan in whole.values():
        PlanStore.of(bundle.path).path(plan.ingredients.component, plan.key).unlink()
    with pytest.raises(PlanError, match=r"has no weights \(--strip\), and this runtime does not refit"):
        choose_plans(PlanStore.of(bundle.path), bundle, MACHINE)


def test_plans_are_chosen_together(bundle_copy: Path) -> None:
    """A later, narrower plan of one component does not narrow what the others can do; a later set of all does."""
    bundle = Bundle.open(bundle_copy)
    store = PlanStore.of(bundle.path)
    wide, narrow = replace(COVERAGE, max_steps=8), replace(COVERAGE, max_steps=4, batch=2)
    first = add_plans(bundle, wide)
    add_plans(bundle, narrow, components=("denoiser",), created=LATER)
    assert choose_plans(store, bundle, MACHINE) == first
    second = add_plans(bundle, narrow, created=LATER)
    assert choose_plans(store, bundle, MACHINE) == second


def test_a_wider_plan_serves_where_there_is_no_other(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    narrow, wide = replace(COVERAGE, max_steps=4), replace(COVERAGE, max_steps=8)
    most = tuple(component for component in COMPONENTS if component != "denoiser")
    made = add_plans(bundle, wide, components=most) | add_plans(bundle, narrow, components=("denoiser",))
    assert choose_plans(PlanStore.of(bundle.path), bundle, MACHINE) == made


def test_plans_with_nothing_in_common_are_refused(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    most = tuple(component for component in COMPONENTS if component != "denoiser")
    add_plans(bundle, replace(COVERAGE, batch=2, max_steps=4), components=most)
    add_plans(bundle, COVERAGE, components=("denoiser",))
    with pytest.raises(
        PlanError, match=r"do not cover anything together: clip .*batch 1 to 2; up to 4 steps.*denoiser"
    ):
        choose_plans(PlanStore.of(bundle.path), bundle, MACHINE)

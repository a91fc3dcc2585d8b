"""The right plan of several, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kontext_trt.engine.build import Builder
from kontext_trt.engine.bundle import Bundle
from kontext_trt.engine.errors import PlanError
from kontext_trt.engine.flavour import Flavour
from kontext_trt.engine.machine import Machine
from kontext_trt.engine.plan_choice import choose_plan
from kontext_trt.engine.plan_store import PlanStore
from kontext_trt.engine.targets import make_target

from .conftest import COVERAGE

Build = Callable[..., str]


@pytest.fixture
def build(wide_bundle: Bundle, rtx: Flavour) -> Build:
    """Builds CLIP's plan for a capability and gives its key."""

    def make(capability: str, max_steps: int = 8) -> str:
        builder = Builder(wide_bundle, rtx, make_target(rtx, capability, ()))
        return builder.build("clip", replace(COVERAGE, max_steps=max_steps)).manifest.key

    return make


def _chosen(bundle: Bundle, machine: Machine) -> str:
    return choose_plan(PlanStore.of(bundle.path), bundle, "clip", machine).key


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


def test_only_plans_that_cover_what_is_needed_count(wide_bundle: Bundle, build: Build, ada_machine: Machine) -> None:
    wide = build("sm_89", max_steps=8)
    build("sm_89", max_steps=4)  # the latest
    store = PlanStore.of(wide_bundle.path)
    needed = replace(COVERAGE, max_steps=8)
    assert choose_plan(store, wide_bundle, "clip", ada_machine, needed).key == wide
    with pytest.raises(PlanError, match=r"up to 8 steps, not .* up to 9 steps"):
        choose_plan(store, wide_bundle, "clip", ada_machine, replace(COVERAGE, max_steps=9))

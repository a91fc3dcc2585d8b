"""Keys change with what a plan is made of, and with nothing else; manifests notice every altered byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from compiler_fixtures import COVERAGE

from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.components import COMPONENTS, Precision
from kontext_trt.engine.errors import PlanError
from kontext_trt.engine.plans.coverage import Task
from kontext_trt.engine.plans.ingredients import Ingredients, plan_ingredients
from kontext_trt.engine.plans.manifest import parse_plan_manifest
from kontext_trt.engine.plans.options import BuildOptions, Compatibility, Refit
from kontext_trt.engine.plans.targets import Target

Bundles = Callable[[Precision], Bundle]


@pytest.fixture
def denoiser(wide_bundles: Bundles, ada: Target) -> Ingredients:
    return plan_ingredients(wide_bundles(Precision.BF16), "denoiser", ada, COVERAGE)


def test_the_key_is_the_same_wherever_the_bundle_lies(denoiser: Ingredients, wide_bundle: Bundle, ada: Target) -> None:
    assert plan_ingredients(wide_bundle, "denoiser", ada, COVERAGE).key == denoiser.key
    assert len(denoiser.key) == 32


def test_the_key_ignores_who_wrote_the_bundle_and_when(denoiser: Ingredients, wide_bundle: Bundle, ada: Target) -> None:
    renamed = replace(wide_bundle.manifest, created="1999", producer="another", source="elsewhere")
    moved = Bundle(path=Path("/nowhere"), manifest=renamed)
    assert plan_ingredients(moved, "denoiser", ada, COVERAGE).key == denoiser.key


@pytest.mark.check  # tracing the second precision takes half a minute
def test_every_component_and_precision_has_a_key_of_its_own(wide_bundles: Bundles, ada: Target) -> None:
    keys = {
        plan_ingredients(wide_bundles(precision), name, ada, COVERAGE).key
        for precision in (Precision.BF16, Precision.FP16)
        for name in COMPONENTS
    }
    assert len(keys) == 2 * len(COMPONENTS)


def test_another_graph_changes_the_key_of_its_component_alone(wide_bundle: Bundle, ada: Target) -> None:
    before = {name: plan_ingredients(wide_bundle, name, ada, COVERAGE).key for name in COMPONENTS}
    files = tuple(
        replace(record, sha256="0" * 64) if record.path == wide_bundle.graph("t5").path else record
        for record in wide_bundle.manifest.files
    )
    altered = Bundle(path=wide_bundle.path, manifest=replace(wide_bundle.manifest, files=files))
    after = {name: plan_ingredients(altered, name, ada, COVERAGE).key for name in COMPONENTS}
    assert {name for name in COMPONENTS if before[name] != after[name]} == {"t5"}


def test_other_weights_change_the_keys_of_those_who_use_them(wide_bundle: Bundle, ada: Target) -> None:
    before = {name: plan_ingredients(wide_bundle, name, ada, COVERAGE).key for name in COMPONENTS}
    used = wide_bundle.graph("denoiser").weights
    weights = tuple(
        replace(record, sample_sha256="0" * 64) if record.path in used else record
        for record in wide_bundle.manifest.weights
    )
    altered = Bundle(path=wide_bundle.path, manifest=replace(wide_bundle.manifest, weights=weights))
    after = {name: plan_ingredients(altered, name, ada, COVERAGE).key for name in COMPONENTS}
    assert {name for name in COMPONENTS if before[name] != after[name]} == {"conditioner", "denoiser"}


CHANGED_OPTIONS = {
    "workspace_bytes": 1 << 30,
    "optimization_level": 5,
    "max_aux_streams": 0,
    "refit": Refit.FULL,
    "strip": True,
    "weight_streaming": True,
    "compatibility": Compatibility.SAME_CAPABILITY,
}


def test_no_option_is_forgotten() -> None:
    assert set(CHANGED_OPTIONS) == {field.name for field in fields(BuildOptions)}


@pytest.mark.parametrize("option", CHANGED_OPTIONS)
def test_every_option_changes_the_key(denoiser: Ingredients, option: str) -> None:
    base = BuildOptions(refit=Refit.IDENTICAL)  # without a refit there is nothing to strip
    changed = replace(base, **{option: CHANGED_OPTIONS[option]})
    assert replace(denoiser, options=base).key != replace(denoiser, options=changed).key


@pytest.mark.parametrize(
    "change",
    [{"flavour": "tensorrt"}, {"version": "1.7.1.117"}, {"capability": "sm_86"}, {"gpu": "NVIDIA L4"}],
)
def test_every_field_of_the_target_changes_the_key(denoiser: Ingredients, change: dict[str, str]) -> None:
    assert replace(denoiser, target=replace(denoiser.target, **change)).key != denoiser.key


def test_what_is_covered_changes_the_key(wide_bundle: Bundle, ada: Target, denoiser: Ingredients) -> None:
    others = [
        replace(COVERAGE, sizes=COVERAGE.sizes[:-1]),
        replace(COVERAGE, batch=2),
        replace(COVERAGE, max_steps=9),
        replace(COVERAGE, tasks=(Task.EDIT,)),
    ]
    keys = {plan_ingredients(wide_bundle, "denoiser", ada, coverage).key for coverage in others}
    assert len(keys | {denoiser.key}) == len(others) + 1


def test_a_manifest_survives_the_file(clip_plan: Built) -> None:
    data = clip_plan.path.with_suffix(".json").read_bytes()
    assert parse_plan_manifest(data, "plan.json") == clip_plan.manifest
    assert clip_plan.manifest.to_json() == data


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"schema": 2', b'"schema": 3', "schema 3 and this version writes 2"),
        (b'"schema": 2', b'"schema": "2"', "damaged"),
        (b"sm_89", b"sm_86", "altered: its checksum does not fit"),
        (b'"size_bytes": ', b'"size_bytes": 1', "altered: its checksum"),
        (b"  ", b" ", "altered"),
        (b"}", b"", "damaged"),
        (b'"plan"', b'"plane"', "damaged"),
        (b"clip", b"\xff\xfe", "damaged"),
    ],
)
def test_an_altered_manifest_says_so(clip_plan: Built, old: bytes, new: bytes, reason: str) -> None:
    data = clip_plan.manifest.to_json()
    assert old in data
    with pytest.raises(PlanError, match=reason) as refusal:
        parse_plan_manifest(data.replace(old, new, 1), "store/plan.json")
    assert "store/plan.json" in str(refusal.value)


def test_a_key_that_is_not_its_ingredients_is_refused(clip_plan: Built) -> None:
    forged = replace(clip_plan.manifest, key="0" * 32).to_json()
    with pytest.raises(PlanError, match=f"has key {'0' * 32}, but its fields give {clip_plan.manifest.key}"):
        parse_plan_manifest(forged, "plan.json")

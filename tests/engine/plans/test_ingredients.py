"""Keys of plans: what is built today must be found tomorrow."""

from __future__ import annotations

from dataclasses import replace

from kontext_trt.engine.components import Precision
from kontext_trt.engine.plans.coverage import Coverage, Task
from kontext_trt.engine.plans.ingredients import Ingredients, WeightsFingerprint
from kontext_trt.engine.plans.options import BuildOptions
from kontext_trt.engine.plans.profiles import ShapeRange
from kontext_trt.engine.plans.targets import Target

CLIP = Ingredients(
    component="clip",
    precision=Precision.BF16,
    graph_sha256="1f" * 32,
    weights=(WeightsFingerprint(size_bytes=1234, sample_sha256="2e" * 32),),
    recipe_sha256="",
    target=Target(flavour="tensorrt_rtx", version="1.7.1.116", capability="sm_89"),
    coverage=Coverage(sizes=((1024, 1024), (672, 1568)), batch=2),
    profile={"input_ids": ShapeRange(min=(1, 77), opt=(1, 77), max=(1, 77))},
    options=BuildOptions(workspace_bytes=1 << 28, optimization_level=4),
)
DENOISER = Ingredients(
    component="denoiser",
    precision=Precision.FP16,
    graph_sha256="ab" * 32,
    weights=(
        WeightsFingerprint(size_bytes=11, sample_sha256="0c" * 32),
        WeightsFingerprint(size_bytes=1 << 34, sample_sha256="d0" * 32),
    ),
    recipe_sha256="5e" * 32,
    target=Target(flavour="tensorrt", version="10.99.0", capability="sm_90", gpu='a "quoted" GPU é'),
    coverage=Coverage(sizes=((1024, 1024),), tasks=(Task.EDIT,), batch=4, max_steps=28),
    profile={
        "latents": ShapeRange(min=(1, 4096, 64), opt=(1, 4096, 64), max=(4, 4096, 64)),
        "cos": ShapeRange(min=(8704, 64), opt=(8704, 64), max=(8704, 64)),
        "step_size": ShapeRange(min=(1,), opt=(1,), max=(1,)),
    },
    options=BuildOptions(weight_streaming=True),
)


def test_a_key_never_changes() -> None:
    """Another value here means that every plan that users have is built again: count `REVISION` up instead."""
    assert CLIP.key == "bed3c7d2854e621224e88de904fbaa45"


def test_one_reference_is_what_plans_were_built_for_before_several_could_be_asked_for() -> None:
    """The key is that of then, when a coverage did not say how many."""
    assert DENOISER.key == "04ffd507244a839fb40aef5cdf89c79b"
    assert replace(DENOISER, coverage=replace(DENOISER.coverage, references=1)).key == DENOISER.key


def test_how_a_profile_is_ordered_is_not_part_of_the_key() -> None:
    backwards = dict(reversed(list(DENOISER.profile.items())))
    assert list(backwards) != list(DENOISER.profile)
    assert replace(DENOISER, profile=backwards).key == DENOISER.key


def test_every_ingredient_is_part_of_the_key() -> None:
    others = (
        replace(CLIP, component="t5"),
        replace(CLIP, precision=Precision.FP16),
        replace(CLIP, graph_sha256="00" * 32),
        replace(CLIP, weights=()),
        replace(CLIP, recipe_sha256="3d" * 32),
        replace(CLIP, target=replace(CLIP.target, version="1.8")),
        replace(CLIP, coverage=replace(CLIP.coverage, batch=1)),
        replace(CLIP, coverage=replace(CLIP.coverage, references=2)),
        replace(CLIP, coverage=replace(CLIP.coverage, references=3)),
        replace(CLIP, profile={}),
        replace(CLIP, options=BuildOptions()),
        replace(CLIP, revision=3),
    )
    assert len({one.key for one in (CLIP, *others)}) == len(others) + 1

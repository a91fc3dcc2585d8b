"""Shape ranges, against numbers made by hand from the trained sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.bundle.manifest import ModelRecord
from kontext_trt.engine.components import COMPONENTS, DYNAMIC_DIMS, Precision
from kontext_trt.engine.errors import RequestError
from kontext_trt.engine.plans.coverage import Coverage, Task
from kontext_trt.engine.plans.profiles import (
    Range,
    ShapeRange,
    check_request,
    check_shapes,
    dynamic_ranges,
    io_bytes,
    profile_of,
)
from kontext_trt.engine.sizes import TRAINED_SIZES, Size, token_grid

ALL = Coverage(sizes=TRAINED_SIZES)
SQUARE = Coverage(sizes=((1024, 1024),), tasks=(Task.EDIT,), batch=2, max_steps=28)


@pytest.fixture
def model(wide_bundles: Callable[[Precision], Bundle]) -> ModelRecord:
    return wide_bundles(Precision.BF16).manifest.model


def test_all_trained_sizes_for_edit_and_generate(model: ModelRecord) -> None:
    ranges = dynamic_ranges(ALL, model)
    assert set(ranges) == DYNAMIC_DIMS
    # 4042 tokens at 688x1504, 4150 at 800x1328; 512 of text
    fewest = min(width * height // 256 for width, height in TRAINED_SIZES)
    most = max(width * height // 256 for width, height in TRAINED_SIZES)
    assert (fewest, most) == (4042, 4150)
    assert ranges["n"] == Range(min=4042, opt=4096, max=4150)
    assert ranges["m"] == Range(min=0, opt=4096, max=4150)
    assert ranges["s"] == Range(min=512 + 4042, opt=512 + 8192, max=512 + 8300)
    assert ranges["h"] == ranges["w"] == Range(min=42, opt=64, max=98)
    assert ranges["N"] == Range(min=1, opt=28, max=50)
    assert ranges["b"] == Range(min=1, opt=1, max=1)


def test_only_one_task(model: ModelRecord) -> None:
    edit = dynamic_ranges(Coverage(sizes=TRAINED_SIZES, tasks=(Task.EDIT,)), model)
    assert edit["m"] == Range(min=4042, opt=4096, max=4150)
    generate = dynamic_ranges(Coverage(sizes=TRAINED_SIZES, tasks=(Task.GENERATE,)), model)
    assert generate["m"] == Range(min=0, opt=0, max=0)
    assert generate["s"] == Range(min=512 + 4042, opt=512 + 4096, max=512 + 4150)


def test_several_references_reach_to_the_longest_of_all_and_leave_the_best_point(model: ModelRecord) -> None:
    one, two = (dynamic_ranges(Coverage(sizes=TRAINED_SIZES, references=count), model) for count in (1, 2))
    assert two["m"] == Range(min=0, opt=4096, max=2 * 4150)
    assert two["s"] == Range(min=512 + 4042, opt=512 + 8192, max=512 + 3 * 4150)
    assert {name for name in one if one[name] != two[name]} == {"m", "s"}
    several = Coverage(sizes=TRAINED_SIZES, references=2)
    assert profile_of(COMPONENTS["vae_encoder"], several, model) == profile_of(COMPONENTS["vae_encoder"], ALL, model)
    assert profile_of(COMPONENTS["denoiser"], several, model)["reference_tokens"].max[1] == 8300


def test_every_input_has_a_range_and_opt_lies_in_it(model: ModelRecord) -> None:
    for component in COMPONENTS.values():
        profile = profile_of(component, ALL, model)
        assert set(profile) == {port.name for port in component.inputs}
        for shapes in profile.values():
            assert shapes.contains(shapes.opt)


def test_a_batch_reaches_only_what_runs_batched(model: ModelRecord) -> None:
    wide = Coverage(sizes=((1024, 1024),), batch=4)
    assert profile_of(COMPONENTS["denoiser"], wide, model)["latents"].max == (4, 4096, 64)
    assert profile_of(COMPONENTS["vae_encoder"], wide, model)["image"] == ShapeRange(
        min=(1, 1024, 1024, 3), opt=(1, 1024, 1024, 3), max=(1, 1024, 1024, 3)
    )


def test_fewer_steps_than_usual_move_the_best_point(model: ModelRecord) -> None:
    profile = profile_of(COMPONENTS["conditioner"], Coverage(sizes=((1024, 1024),), max_steps=4), model)
    assert profile["timesteps"] == ShapeRange(min=(1,), opt=(4,), max=(4,))


def test_bytes_at_the_border(model: ModelRecord) -> None:
    encoder = io_bytes(COMPONENTS["vae_encoder"], Coverage(sizes=((1024, 1024),)), model, Precision.BF16)
    assert encoder == 1024 * 1024 * 3 + 4096 * 64 * 4
    t5 = io_bytes(COMPONENTS["t5"], ALL, model, Precision.FP16)
    assert t5 == 512 * 4 + 512 * 64 * 4


def test_a_shape_outside_names_the_input_and_its_range(model: ModelRecord) -> None:
    profile = profile_of(COMPONENTS["vae_decoder"], ALL, model)
    check_shapes("vae_decoder", profile, {"latents": (1, 64, 64, 64)})
    with pytest.raises(RequestError, match=r"vae_decoder: latents \[1, 41, 64, 64\] is outside.*\[1, 42, 42, 64\] to"):
        check_shapes("vae_decoder", profile, {"latents": (1, 41, 64, 64)})
    with pytest.raises(RequestError, match="--batch"):
        check_shapes("vae_decoder", profile, {"latents": (1, 64, 64)})


def requested(size: Size, *, reference: Size | None = None, batch: int = 1, steps: int = 1) -> dict[str, Any]:
    references = () if reference is None else (token_grid(reference),)
    return {"grid": token_grid(size), "references": references, "batch": batch, "steps": steps}


def test_what_is_covered_passes(model: ModelRecord) -> None:
    check_request(ALL, model, **requested((1568, 672), reference=(672, 1568), steps=50))
    check_request(ALL, model, **requested((1024, 1024)))
    check_request(ALL, model, **requested((1008, 1040), reference=(1024, 1024)))  # between two that are covered
    check_request(SQUARE, model, **requested((1024, 1024), reference=(1024, 1024), batch=2, steps=28))


@pytest.mark.parametrize(
    ("request_", "advice"),
    [
        ({"size": (1504, 688), "reference": (1024, 1024)}, "no profile for 1504x688.*build with --size 1504x688"),
        ({"size": (1024, 1024), "reference": (688, 1504)}, "no profile for 688x1504"),
        ({"size": (1024, 1024)}, "cover 1024x1024; edit; .*build with --task generate"),
        ({"size": (1024, 1024), "reference": (1024, 1024), "batch": 3}, "build with --batch 3"),
        ({"size": (1024, 1024), "reference": (1024, 1024), "steps": 29}, "build with --max-steps 29"),
    ],
)
def test_what_is_not_covered_is_refused_with_the_command(
    model: ModelRecord, request_: dict[str, Any], advice: str
) -> None:
    with pytest.raises(RequestError, match=advice):
        check_request(SQUARE, model, **requested(**request_))


def test_generating_alone_takes_no_reference(model: ModelRecord) -> None:
    generate = Coverage(sizes=((1024, 1024),), tasks=(Task.GENERATE,))
    with pytest.raises(RequestError, match="build with --task edit"):
        check_request(generate, model, **requested((1024, 1024), reference=(1024, 1024)))


def test_two_references_are_covered_and_three_name_the_option(model: ModelRecord) -> None:
    square = token_grid((1024, 1024))

    def ask(covered: int, references: int) -> None:
        coverage = Coverage(sizes=((1024, 1024),), references=covered)
        check_request(coverage, model, grid=square, references=[square] * references, batch=1, steps=1)

    for references in (0, 1, 2):
        ask(2, references)
    with pytest.raises(RequestError, match="up to 2 references; build with --references 3"):
        ask(2, 3)
    with pytest.raises(RequestError, match="up to 50 steps; build with --references 2"):
        ask(1, 2)


def test_each_of_several_references_must_be_of_a_size_that_is_covered(model: ModelRecord) -> None:
    grids = [token_grid((1024, 1024)), token_grid((688, 1504))]
    coverage = Coverage(sizes=((1024, 1024),), references=2)
    with pytest.raises(RequestError, match="no profile for 688x1504"):
        check_request(coverage, model, grid=grids[0], references=grids, batch=1, steps=1)


def test_several_references_where_none_is_covered_name_the_task(model: ModelRecord) -> None:
    square, generate = token_grid((1024, 1024)), Coverage(sizes=((1024, 1024),), tasks=(Task.GENERATE,))
    with pytest.raises(RequestError, match="build with --task edit"):
        check_request(generate, model, grid=square, references=[square] * 2, batch=1, steps=1)

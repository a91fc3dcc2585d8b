"""What the component table says, held against what else is said of components."""

from __future__ import annotations

from kontext_trt.engine.bundle.manifest import OLDEST_SCHEMA, SCHEMA
from kontext_trt.engine.components import COMPONENTS, Operators, Quantized, Runs
from kontext_trt.export.graphs.recipes import CALIBRATED, KEPT, RECIPES, make_recipe, matches


def test_pictures_go_together_where_the_batch_is_a_dimension_of_a_request():
    assert [name for name, one in COMPONENTS.items() if one.batched] == ["conditioner", "denoiser"]
    assert [one.runs for one in COMPONENTS.values()].count(Runs.STEP) == 1


def test_a_schemas_ports_are_those_since_it_or_before():
    since = {port.name: port.since for one in COMPONENTS.values() for port in one.ports if port.since}
    assert list(since) == [
        "previous_velocity", "velocity_weights", "keep", "clean", "noise", "next_sigma", "velocity",
    ]  # fmt: skip
    assert set(since.values()) == {SCHEMA}
    older = COMPONENTS["denoiser"].of_schema(OLDEST_SCHEMA)
    assert [port.name for port in older.inputs][-1] == "step_size"
    assert [port.name for port in older.outputs] == ["next_latents"]
    assert all(one.of_schema(SCHEMA) == one for one in COMPONENTS.values())


def test_what_no_recipe_quantizes_has_a_reason():
    for name, component in COMPONENTS.items():
        whole = [kept for kept in KEPT if matches(kept.pattern, f"{name}.any.layer")]
        assert bool(whole) is (component.quantized is Quantized.NOTHING), name


def test_recipes_change_what_the_table_allows():
    assert CALIBRATED.name == "denoiser"
    assert make_recipe("fp8", t5=True).components == ("denoiser", "t5")
    assert make_recipe("bf16", t5=True).components == ("t5",)
    assert not make_recipe("bf16", t5=True).calibrated
    assert [recipe.calibrated for recipe in RECIPES.values()] == [False, True, True, True, True]


def test_only_one_graph_can_have_onnx_runtimes_own_operators():
    found = {name: Operators.ONNXRUNTIME.of(one) for name, one in COMPONENTS.items()}
    assert [name for name, operators in found.items() if operators is Operators.ONNXRUNTIME] == ["denoiser"]
    assert {Operators.DECOMPOSED.of(one) for one in COMPONENTS.values()} == {Operators.DECOMPOSED}

"""The real compiler takes quantized graphs and multiplies exactly what was asked in FP8 and FP4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from building import Site

from kontext_trt import Bundle, TargetError
from kontext_trt.engine.components import Operators, Precision
from kontext_trt.engine.flavour import Flavour, FlavourName, load_flavour
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.ingredients import plan_ingredients
from kontext_trt.engine.plans.targets import make_target

if TYPE_CHECKING:
    from kontext_trt.export.quantize.calibration import Calibration

COVERAGE = Coverage(sizes=((96, 192), (128, 128), (192, 96)), max_steps=8)
LINEARS = 2 * 12 + 2 * 5
"""In two blocks of each kind; what is left are the two embedders and the final layer, in bf16."""


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    return load_flavour(FlavourName.TENSORRT_RTX)


def build(bundle: Bundle, rtx: Flavour, capability: str, component: str = "denoiser"):
    return Site(bundle, make_target(rtx, capability, ())).build(component, COVERAGE)


@pytest.mark.parametrize(
    ("recipe", "capability", "number_format", "attention"),
    [
        pytest.param("fp8", "sm_89", "fp8", "bf16", marks=pytest.mark.check),
        ("fp8", "sm_120", "fp8", "bf16"),
        pytest.param("fp8-attention", "sm_89", "fp8", "fp8", marks=pytest.mark.check),
        pytest.param("fp8-attention", "sm_120", "fp8", "fp8", marks=pytest.mark.check),
        pytest.param("nvfp4", "sm_120", "nvfp4", "bf16", marks=pytest.mark.check),
        ("nvfp4-svd", "sm_120", "nvfp4", "bf16"),
    ],
)
def test_every_product_of_the_blocks_and_no_other(
    wide_quantized: Callable[..., Bundle],
    rtx: Flavour,
    recipe: str,
    capability: str,
    number_format: str,
    attention: str,
) -> None:
    """`strays` would name a product in another format than its node's, and a kernel in one that no node asked for."""
    bundle = wide_quantized(recipe)
    manifest = build(bundle, rtx, capability).manifest
    census = manifest.census
    in_attention = 2 * 4 if attention == "fp8" else 0
    assert census.products_asked == {number_format: LINEARS + in_attention}
    assert census.strays == manifest.warnings == ()
    assert set(census.gemms) == {number_format, "bf16"}
    if recipe != "nvfp4-svd":  # whose branches are in bf16
        assert census.gemms["bf16"] <= 3 + in_attention, "queries and keys are turned by one each"
    assert census.attention == {attention: 4}
    assert census.rounded == ()
    assert set(census.attention_scales) == (set() if attention == "fp8" else {"1"})
    assert census.weight_bytes < 1.02 * bundle.graph("denoiser").weight_bytes, "nothing was widened"


@pytest.mark.check  # all six networks traced for this alone
def test_decomposed_graphs_quantize_from_float32(
    wide_checkpoint: Path, wide_calibration: Calibration, rtx: Flavour, tmp_path: Path
) -> None:
    """Below opset 23 values and scale have one type. In bfloat16 a compiler multiplies by a rounded reciprocal."""
    from kontext_trt.export.checkpoint import open_checkpoint
    from kontext_trt.export.export import ExportOptions, export_bundle
    from kontext_trt.export.graphs.recipes import make_recipe
    from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

    options = ExportOptions(precision=Precision.BF16, operators=Operators.DECOMPOSED)
    plain = export_bundle(open_checkpoint(wide_checkpoint), tmp_path / "plain", options)
    bundle = quantize_bundle(plain, tmp_path / "fp8", make_recipe("fp8"), wide_calibration)
    census = build(bundle, rtx, "sm_89").manifest.census
    assert census.products_asked == {"fp8": LINEARS}
    assert census.strays == census.rounded == ()


def test_weights_of_t5_stay_fp8_in_the_plan(
    wide_quantized: Callable[..., Bundle], wide_bundles: Callable[[Precision], Bundle], rtx: Flavour
) -> None:
    bundle, plain = wide_quantized("fp8", t5=True), wide_bundles(Precision.BF16)
    saved = build(plain, rtx, "sm_89", "t5").manifest.census.weight_bytes
    census = build(bundle, rtx, "sm_89", "t5").manifest.census
    quantization = bundle.graph("t5").quantization
    assert quantization is not None
    assert quantization.products == {"fp8_weights": 14}
    assert set(census.gemms) == {"bf16"}, "activations are not quantized"
    halved = plain.graph("t5").weight_bytes - bundle.graph("t5").weight_bytes
    assert halved > 60_000
    assert saved - census.weight_bytes > 0.9 * halved


def test_a_gpu_without_the_format_is_refused_with_the_alternative(
    wide_quantized: Callable[..., Bundle], rtx: Flavour
) -> None:
    for recipe, capability, words in (
        ("nvfp4", "sm_89", "sm_89 has no nvfp4, which sm_10x and sm_12x have; export or quantize to fp8"),
        ("fp8", "sm_86", "sm_86 has no fp8, which starts at sm_89; export with --precision bf16"),
    ):
        with pytest.raises(TargetError, match=words):
            build(wide_quantized(recipe), rtx, capability)


def test_the_recipe_is_in_the_plans_key(wide_quantized: Callable[..., Bundle], rtx: Flavour) -> None:
    bundle = wide_quantized("fp8")
    found = plan_ingredients(bundle, "denoiser", make_target(rtx, "sm_89", ()), COVERAGE)
    quantization = bundle.graph("denoiser").quantization
    assert quantization is not None
    assert found.recipe_sha256 == quantization.recipe_sha256 != ""
    assert replace(found, recipe_sha256="another").key != found.key
    assert plan_ingredients(bundle, "clip", make_target(rtx, "sm_89", ()), COVERAGE).recipe_sha256 == ""


def test_fp8_weights_hang_on_their_layers_input(wide_quantized: Callable[..., Bundle]) -> None:
    """A compiler merges products and lays their dequantized weights out beforehand: those of all layers at once.

    How much that takes at full width, `python -m kontext_trt.benchmarks.costs.budget_table --check 4+4` shows.
    """
    from kontext_trt.export.emulate.bundle_modules import read_model
    from kontext_trt.export.graphs.linears import find_linears

    linears = find_linears(read_model(wide_quantized("fp8", t5=True), "t5"))
    assert len(linears) == 14
    for linear in linears.values():
        node = linear.transpose.inputs[0].producer()
        assert node.op_type == "Add"
        assert node.inputs[0] is linear.dequantized
        value = node.inputs[1]
        for operator in ("Cast", "Mul", "ReduceSum", "Cast", "Slice"):
            assert value.producer().op_type == operator
            value = value.producer().inputs[0]
        assert value is linear.input

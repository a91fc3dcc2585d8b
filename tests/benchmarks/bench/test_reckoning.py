"""Seconds that are reckoned: what a recipe makes of a graph's work, and sums over a picture's stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kontext_trt import Bundle, BundleError, OptionError
from kontext_trt.benchmarks.bench import reckoning as reckoning_module
from kontext_trt.benchmarks.bench.graph_work import GraphWork, Heavy, Weight
from kontext_trt.benchmarks.bench.reckoning import SHEETS, Reckoning, as_quantized, sheet
from kontext_trt.benchmarks.bench.records import Case, Ceilings
from kontext_trt.benchmarks.bench.roofline import work_of
from kontext_trt.export.graphs.recipes import RECIPES

EDIT = Case(size=(112, 144), reference=(128, 96), steps=4, batch=1, seed=0, guidance=2.5, prompt="x")
NAME = "transformer_blocks.0.ff.net.2.weight"
PRODUCT = Heavy(
    node="p", operator="MatMul", number_format="bf16", is_attention=False, operations=2.0 * 100 * 64 * 32,
    size_bytes=2 * (100 * 64 + 64 * 32 + 100 * 32), weight=NAME, weight_shape=(64, 32),
)  # fmt: skip
ATTENTION = Heavy(node="a", operator="Attention", number_format="bf16", is_attention=True, operations=1e6, size_bytes=9)
LAST = replace(PRODUCT, node="last", weight="proj_out.weight")
WORK = GraphWork(
    heavy=(PRODUCT, ATTENTION, LAST),
    traffic={},
    weights={name: Weight(parameters=64 * 32, size_bytes=2 * 64 * 32) for name in (NAME, "proj_out.weight")},
    io_bytes=10,
)


def test_fp8_halves_what_a_recipe_takes():
    made = as_quantized(WORK, RECIPES["fp8"])
    assert made.heavy == (replace(PRODUCT, number_format="fp8", size_bytes=PRODUCT.size_bytes - 1792), ATTENTION, LAST)
    assert made.weight_bytes == WORK.weight_bytes - 2048 + 4 * 64, "a scale per output channel"
    assert made.parameters == WORK.parameters
    assert as_quantized(WORK, RECIPES["fp8-attention"]).heavy[1].number_format == "fp8"
    assert as_quantized(WORK, RECIPES["bf16"]) == WORK


def test_nvfp4_has_a_scale_per_sixteen_and_a_branch():
    made = as_quantized(WORK, RECIPES["nvfp4"])
    assert made.weights[NAME].size_bytes == 64 * 32 * 9 / 16
    assert [one.number_format for one in made.heavy] == ["nvfp4", "bf16", "bf16"]
    branch = as_quantized(WORK, RECIPES["nvfp4-svd"]).heavy[1]
    assert (branch.number_format, branch.operations) == ("bf16", 2 * 100 * 32 * (64 + 32))
    assert branch.size_bytes == 2 * (100 * (64 + 32) + 32 * (64 + 32))


@pytest.mark.parametrize("recipe", ["fp8", "nvfp4"])
def test_it_is_the_work_of_the_quantized_graph(bundle_path: Path, tiny_quantized: Callable[[str], Bundle], recipe: str):
    """Products and attention by number format as they are counted in what `quantize` writes."""
    plain = work_of(Bundle.open(bundle_path), "denoiser", EDIT)
    real = work_of(tiny_quantized(recipe), "denoiser", EDIT).work()
    made = as_quantized(plain, RECIPES[recipe]).work()
    assert made.products == pytest.approx(real.products)
    assert made.attention == real.attention
    assert made.weight_bytes == pytest.approx(real.weight_bytes, rel=0.01), "but for scales per tensor"


def made_up(bundle: Bundle, component: str, case: Case) -> GraphWork:
    """One product in bf16, of as many operations as its name has letters and, for the conditioner, its steps."""
    operations = len(component) * (case.steps if component == "conditioner" else 1) * 1e12
    one = replace(PRODUCT, operations=operations, size_bytes=0, weight_shape=(1, 1))
    return GraphWork(heavy=(one,), traffic={}, weights=WORK.weights, io_bytes=0)


@pytest.fixture
def reckoned(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[[Ceilings, Case], Reckoning]:
    monkeypatch.setattr(reckoning_module, "work_of", made_up)
    return lambda ceilings, case: Reckoning(bundle, ceilings, case)


CEILINGS = Ceilings(copy=1e30, products={"bf16": 1e12, "fp8": 4e12}, attention={}, how="made up")


def test_seconds_are_sums_of_stages(reckoned: Callable[[Ceilings, Case], Reckoning]):
    reckoning = reckoned(CEILINGS, EDIT)
    assert reckoning.step_seconds(RECIPES["bf16"]) == pytest.approx(8.0), "denoiser"
    assert reckoning.step_seconds(RECIPES["fp8"]) == pytest.approx(2.0)
    assert reckoning.step_seconds(RECIPES["nvfp4"]) is None, "without a rate"
    # clip, t5, vae_encoder, conditioner in 5 steps, vae_decoder
    assert reckoning.other_seconds(5) == pytest.approx(4 + 2 + 11 + 5 * 11 + 11)
    alone = reckoned(CEILINGS, Case(size=(64, 64), reference=None, steps=1, batch=1, seed=0, guidance=1, prompt=""))
    assert alone.other_seconds(1) == pytest.approx(4 + 2 + 11 + 11)
    slow = Ceilings(copy=1e30, products={"fp8": 1e12}, attention={}, how="made up")
    assert reckoned(slow, EDIT).other_seconds(1) is None


def test_cached_steps_are_of_bundles_that_have_them(
    reckoned: Callable[[Ceilings, Case], Reckoning], monkeypatch: pytest.MonkeyPatch
):
    reckoning = reckoned(CEILINGS, EDIT)
    with pytest.raises(BundleError, match="does not have the feature step_cache"):
        reckoning.step_seconds(RECIPES["fp8"], cached=True)
    monkeypatch.setattr(Bundle, "require", lambda *_: None)
    assert reckoning.step_seconds(RECIPES["fp8"], cached=True) == pytest.approx(15.0), "in bf16"


def test_what_is_quantized_already_is_refused(tiny_quantized: Callable[[str], Bundle]):
    with pytest.raises(BundleError, match="is quantized; what a recipe makes of a model is reckoned from one that is"):
        Reckoning(tiny_quantized("fp8"), CEILINGS, EDIT)


def test_sheets_are_by_name():
    assert sheet("H200") is SHEETS["H200"]
    assert "nvfp4" not in sheet("H200").products
    with pytest.raises(OptionError, match=r"the GPU is one of RTX 5090, H200, .* not 'H2000'"):
        sheet("H2000")

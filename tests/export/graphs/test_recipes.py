"""What recipes quantize, what they leave alone, and what they are called."""

from __future__ import annotations

import pytest

from kontext_trt import QuantizationError
from kontext_trt.cli.export import ExportPrecision
from kontext_trt.engine.components import Precision
from kontext_trt.export.graphs.recipes import KEPT, RECIPES, Fp8, Fp8Weights, Nvfp4, RecipeName, make_recipe, matches


def test_blocks_are_quantized_and_what_is_delicate_is_not() -> None:
    recipe = make_recipe("fp8")
    assert recipe.format_of("denoiser", "transformer_blocks.0.attn.to_q") == Fp8()
    assert recipe.format_of("denoiser", "single_transformer_blocks.37.proj_out") == Fp8(), "not the final layer"
    for layer in ("x_embedder", "proj_out"):
        assert recipe.format_of("denoiser", layer) is None
    assert recipe.format_of("conditioner", "transformer_blocks.0.norm1.linear") is None
    assert recipe.components == ("denoiser",)
    assert all(kept.reason for kept in KEPT)


def test_recipes_differ_by_what_they_do() -> None:
    assert RECIPES["nvfp4-svd"].blocks == Nvfp4(rank=32)
    assert RECIPES["fp8-attention"].attention_is_fp8("denoiser", "transformer_blocks.0.attn")
    assert not RECIPES["fp8"].attention_is_fp8("denoiser", "transformer_blocks.0.attn")
    assert RECIPES["bf16"].components == ()
    t5 = make_recipe("fp8", t5=True)
    assert t5.components == ("denoiser", "t5")
    assert t5.format_of("t5", "encoder.block.0.layer.0.SelfAttention.q") == Fp8Weights()
    hashes = {make_recipe(name).sha256 for name in RECIPES}
    assert len(hashes | {t5.sha256, make_recipe("fp8", keep=("a",)).sha256}) == len(RECIPES) + 2
    assert make_recipe("fp8", percentile=99.9).sha256 != make_recipe("fp8").sha256


def test_keep_takes_patterns() -> None:
    recipe = make_recipe(
        "fp8-attention", keep=("single_transformer_blocks.1.*", "*.to_q", "t5.encoder.block.0"), t5=True
    )
    assert recipe.kept("denoiser", "single_transformer_blocks.1.proj_out")
    assert not recipe.kept("denoiser", "single_transformer_blocks.10.proj_out")
    assert recipe.kept("denoiser", "transformer_blocks.0.attn.to_q")
    assert recipe.format_of("t5", "encoder.block.0.layer.0.SelfAttention.q") is None
    assert not recipe.attention_is_fp8("denoiser", "single_transformer_blocks.1.attn")
    assert matches("denoiser.a", "denoiser.a.b")
    assert not matches("denoiser.a", "denoiser.ab")


def test_every_recipe_can_be_named_on_the_command_line() -> None:
    assert {name.value for name in RecipeName} == set(RECIPES) - {"bf16"}
    assert {one.value for one in ExportPrecision} == {one.value for one in (*Precision, *RecipeName)}
    assert [one.value for one in ExportPrecision if one.recipe] == [name.value for name in RecipeName]


def test_refusals_list_what_there_is() -> None:
    with pytest.raises(QuantizationError, match="a recipe is one of bf16, fp8, fp8-attention, nvfp4, nvfp4-svd, not"):
        make_recipe("int3")
    with pytest.raises(QuantizationError, match="a percentile from 50 to below 100"):
        make_recipe("fp8", percentile=100)

"""Limits from work and ceilings, and what hoisting and pruning take out of a step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from command_line import LINKS

from kontext_trt import Bundle, Kontext
from kontext_trt.benchmarks.bench.graph_work import GraphWork, Heavy, Weight
from kontext_trt.benchmarks.bench.records import Case, Ceilings, Roofline, StageLimit, decode_lines, encode_lines
from kontext_trt.benchmarks.bench.roofline import dynamic_extents, hoisting, roofline, stage_limit, work_of
from kontext_trt.benchmarks.bench.section import Section
from kontext_trt.benchmarks.bench.sections import sections
from kontext_trt.benchmarks.bench.unpruned import write_unpruned
from kontext_trt.engine.errors import BundleError

EDIT = Case(size=(112, 144), reference=(128, 96), steps=4, batch=2, seed=0, guidance=2.5, prompt="x")
GENERATE = Case(size=(112, 144), reference=None, steps=4, batch=1, seed=0, guidance=2.5, prompt="x")
CEILINGS = Ceilings(copy=1e12, products={"fp32": 1e13, "bf16": 1e14}, attention={"fp32": 5e12}, how="made up")
HEAVY = Heavy(node="p", operator="MatMul", number_format="bf16", is_attention=False, operations=1e12, size_bytes=10**9)


def component(*heavy: Heavy, size_bytes: int = 0) -> GraphWork:
    weights = {"w": Weight(parameters=size_bytes // 2, size_bytes=size_bytes)}
    return GraphWork(heavy=heavy, traffic={}, weights=weights, io_bytes=0)


def test_the_limit_is_the_longer_of_arithmetic_and_traffic():
    """1e12 operations at 1e14 a second are 10 ms, 1e9 bytes at 1e12 a second 1 ms."""
    found = stage_limit([component(HEAVY)], CEILINGS, 20.0)
    assert (found.limit_ms, found.bound, found.share) == (pytest.approx(10.0), "products", pytest.approx(0.5))
    slow = replace(HEAVY, size_bytes=30 * 10**9)
    found = stage_limit([component(HEAVY, slow)], CEILINGS, None)
    assert (found.limit_ms, found.bound, found.share) == (pytest.approx(40.0), "traffic", None)
    attention = replace(HEAVY, is_attention=True, number_format="fp32")
    found = stage_limit([component(HEAVY), component(attention)], CEILINGS, None)
    assert (found.limit_ms, found.bound) == (pytest.approx(210.0), "attention")
    assert found.work.attention == {"fp32": 1e12}


def test_fp8_products_have_their_own_rate():
    """1e12 operations in bf16 at 1e14 a second are 10 ms, in FP8 at 2e14 5 ms; attention stays in bf16."""
    ceilings = replace_rates(products={"bf16": 1e14, "fp8": 2e14}, attention={"bf16": 5e13})
    fp8, attention = replace(HEAVY, number_format="fp8"), replace(HEAVY, is_attention=True)
    found = stage_limit([component(HEAVY, fp8, attention)], ceilings, 70.0)
    assert found.limit_ms == pytest.approx(10 + 5 + 20)
    assert found.share == pytest.approx(0.5)
    (row,) = [row for row in only_section(found).rows if row[0] == "step"]
    assert row[-1] == "50 %"
    assert (
        "step: 1.00 T of products in bf16, 1.00 T of products in fp8, 1.00 T of attention in bf16"
        in only_section(found).note
    )


def test_the_rate_that_is_missing_is_named():
    fp8 = replace(HEAVY, is_attention=True, number_format="fp8")
    found = stage_limit([component(HEAVY, fp8, fp8)], CEILINGS, 5.0)
    assert (found.limit_ms, found.lacks) == (None, ("fp8 attention",))
    assert "step has no limit without a rate of fp8 attention" in only_section(found).note


def test_an_fp8_bundle_has_a_limit(fused_quantized: Callable[..., Bundle]):
    rates = {"fp32": 1e13, "fp8": 4e13}
    ceilings = replace_rates(products=rates, attention={"fp32": 5e12, "fp8": 1e13})
    limits = [
        roofline(fused_quantized(recipe), GENERATE, ceilings, {"step": 1e3}).stages["step"]
        for recipe in ("fp8", "fp8-attention")
    ]
    assert [list(limit.work.attention) for limit in limits] == [["fp32"], ["fp8"]]
    assert all(limit.share is not None and "fp8" in limit.work.products for limit in limits)
    assert decode_lines(encode_lines([Roofline(stages={"step": limits[0]})])) == [Roofline(stages={"step": limits[0]})]


def replace_rates(**rates: dict[str, float]) -> Ceilings:
    return msgspec.structs.replace(CEILINGS, **rates)


def only_section(limit: StageLimit) -> Section:
    (found,) = sections([Roofline(stages={"step": limit})])
    return found


def test_weights_are_read_once_at_least():
    found = stage_limit([component(HEAVY, size_bytes=50 * 10**9)], CEILINGS, None)
    assert (found.limit_ms, found.bound) == (pytest.approx(50.0), "traffic")


def test_a_format_without_a_rate_has_no_limit():
    """Whatever else the stage does; its work is counted all the same."""
    found = stage_limit([component(HEAVY), component(replace(HEAVY, number_format="nvfp4"))], CEILINGS, 5.0)
    assert (found.limit_ms, found.bound, found.share, found.measured_ms) == (None, None, None, 5.0)
    assert set(found.work.products) == {HEAVY.number_format, "nvfp4"}


def test_a_stage_of_several_runs_reads_its_weights_in_each_and_has_them_once():
    one, three = (stage_limit([component(HEAVY)], CEILINGS, None, runs=runs) for runs in (1, 3))
    assert three.limit_ms == pytest.approx(3 * one.limit_ms)
    assert three.work.products[HEAVY.number_format] == 3 * one.work.products[HEAVY.number_format]
    assert (three.work.weight_bytes, three.work.parameters) == (one.work.weight_bytes, one.work.parameters)


def test_stages_of_an_edit(bundle: Bundle):
    found = roofline(bundle, EDIT, CEILINGS, {"step": 1e3, "total": 5.0})
    assert list(found.stages) == ["text", "encode", "condition", "step", "decode"]
    step, decode = found.stages["step"], found.stages["decode"]
    assert step.limit_ms is not None
    assert step.share == pytest.approx(step.limit_ms / 1e3)
    assert decode.measured_ms is None
    assert decode.work.products["fp32"] == 2 * work_of(bundle, "vae_decoder", EDIT).work().products["fp32"]
    assert found.stages["text"].work.parameters == sum(bundle.graph(name).num_parameters for name in ("clip", "t5"))
    assert decode_lines(encode_lines([found])) == [found]


def test_without_ceilings_there_is_work_and_no_limit(bundle: Bundle):
    found = roofline(bundle, GENERATE)
    assert list(found.stages) == ["text", "condition", "step", "decode"]
    assert {stage.limit_ms for stage in found.stages.values()} == {None}
    assert found.stages["step"].work.attention["fp32"] > 0


def test_dimensions_of_a_request(bundle: Bundle):
    model = bundle.manifest.model
    assert dynamic_extents("denoiser", EDIT, model) == {
        "b": 2, "n": 63, "m": 48, "s": 512 + 63 + 48, "N": 4, "h": 9, "w": 7,
    }  # fmt: skip
    encoder = dynamic_extents("vae_encoder", EDIT, model)
    assert (encoder["b"], encoder["h"], encoder["w"]) == (1, 6, 8)
    assert dynamic_extents("conditioner", GENERATE, model)["m"] == 0


@pytest.fixture(scope="module")
def unpruned(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_unpruned(Bundle.open(bundle_path), tmp_path_factory.mktemp("unpruned") / "bundle")


@pytest.mark.check  # a denoiser is traced for it
def test_one_single_block_needs_the_unpruned_graph(bundle: Bundle, unpruned: Bundle):
    manifest = bundle.manifest
    small = replace(bundle, manifest=replace(manifest, model=replace(manifest.model, num_single_blocks=1)))
    with pytest.raises(BundleError, match="counted against an unpruned bundle"):
        hoisting(small, EDIT)
    assert hoisting(small, EDIT, unpruned) == hoisting(bundle, EDIT)


@pytest.mark.parametrize("case", [EDIT, GENERATE])
@pytest.mark.check  # a denoiser is traced for it
def test_a_step_before_and_after(bundle: Bundle, unpruned: Bundle, case: Case):
    """With the graph whose last block is whole, and reckoned from the block before it."""
    found = hoisting(bundle, case, unpruned)
    assert hoisting(bundle, case) == found
    conditioner, denoiser = bundle.graph("conditioner"), bundle.graph("denoiser")
    shared = 64 * 64 + 64  # x_embedder is in both
    assert found.undivided.parameters == conditioner.num_parameters + denoiser.num_parameters - shared
    assert found.hoisted.parameters == found.pruned.parameters == denoiser.num_parameters
    one = work_of(bundle, "conditioner", case, steps=1)
    assert found.undivided.operations - found.hoisted.operations == sum(heavy.operations for heavy in one.heavy)
    assert found.hoisted.operations > found.pruned.operations
    assert found.undivided.traffic_bytes > found.hoisted.traffic_bytes > found.pruned.traffic_bytes
    assert decode_lines(encode_lines([found])) == [found]


@pytest.mark.check  # a denoiser is traced for it
def test_an_unpruned_bundle_is_sound_and_shares_the_weights(bundle: Bundle, unpruned: Bundle, tmp_path: Path):
    assert unpruned.verify().problems == ()
    assert unpruned.fingerprint != bundle.fingerprint
    for weights in bundle.manifest.weights:
        assert (bundle.path / weights.path).samefile(unpruned.path / weights.path)
    again = write_unpruned(bundle, tmp_path / "again", unpruned.open_graph("denoiser").path)
    assert again.fingerprint == unpruned.fingerprint
    with Kontext.open(bundle) as one, Kontext.open(unpruned) as other:
        latents = [kontext.generate("x", seed=1, steps=2, size=(64, 64)).outputs[0].latents for kontext in (one, other)]
    assert latents[0] == pytest.approx(latents[1], abs=1e-4)


def test_a_quantized_denoiser_is_not_unpruned(bundle: Bundle, tmp_path: Path):
    from kontext_trt.engine.bundle.manifest import QuantizationRecord

    record = QuantizationRecord(recipe="fp8", recipe_sha256="", calibration_sha256="", products={})
    graphs = {**bundle.manifest.graphs, "denoiser": replace(bundle.graph("denoiser"), quantization=record)}
    quantized = replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
    with pytest.raises(BundleError, match="is quantized"):
        write_unpruned(quantized, tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.check  # a denoiser is traced for it
def test_the_command_prints_work_and_limits(bundle: Bundle, unpruned: Bundle):
    module = "kontext_trt.benchmarks.bench.roofline"
    rates = ["--copy", "1e12", "--products", "1e13", "--attention", "5e12"]
    command = [sys.executable, "-m", module, str(bundle.path), "--unpruned", str(unpruned.path), *rates, "--operators"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": LINKS})
    for words in ("decode", "undivided", "% FLOPs", "Gelu", " ms, "):
        assert words in done.stdout

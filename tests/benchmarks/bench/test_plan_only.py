"""Memory predicted before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import onnx_ir as ir
import pytest
from simulated_tensorrt import ACTIVATIONS, add_plans

from kontext_trt import Bundle
from kontext_trt.benchmarks.bench import plan_only
from kontext_trt.benchmarks.bench.plan_only import (
    ALL_RESIDENT,
    ENCODERS,
    ENCODERS_IN_TURNS,
    LEAST,
    bytes_saved,
    check,
    predict,
    within,
)
from kontext_trt.benchmarks.bench.records import (
    Checked,
    ComponentMemory,
    EngineRun,
    Memory,
    Predicted,
    Prediction,
    decode_lines,
    encode_lines,
)
from kontext_trt.engine.bundle.manifest import QuantizationRecord
from kontext_trt.engine.components import COMPONENTS
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.store import PlanStore
from kontext_trt.export.graphs.linears import find_linears
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibrate import model_sha256
from kontext_trt.export.quantize.calibration import Calibration, Observation
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle
from kontext_trt.runtime.executors.on_device import GRAPH_BYTES
from kontext_trt.runtime.executors.onnxruntime_costs import SESSION_BYTES, costs
from kontext_trt.runtime.flow.tensors import request_tensors, total_bytes, usual_shape

COVERAGE = Coverage(sizes=((128, 128),), max_steps=28)


def row(prediction: Prediction, executor: str, precision: str, residency: str) -> Predicted:
    wanted = (executor, precision, residency)
    (found,) = (one for one in prediction.rows if (one.executor, one.precision, one.residency) == wanted)
    return found


def buffer_bytes(bundle: Bundle) -> int:
    return GRAPH_BYTES + total_bytes(request_tensors(bundle, usual_shape(bundle)))


def made_up(bundle: Bundle) -> Calibration:
    """Every activation of the denoiser reaches 1."""
    seen = Observation(amax=1.0, tensors=1, values=1, first_bin=0, counts=(1,))
    layers = find_linears(ir.load(bundle.open_graph("denoiser").path))
    return Calibration(
        model_sha256=model_sha256(bundle), steps=1, observations=dict.fromkeys(layers, seen), complete=True
    )


def test_onnx_runtime_by_its_rule(bundle: Bundle):
    found, reckoned = predict(bundle), costs(bundle, usual_shape(bundle))
    assert {one.precision for one in found.rows} == {"fp32"}
    everything = row(found, "onnxruntime", "fp32", ALL_RESIDENT)
    graphs = {name: bundle.graph(name).weight_bytes for name in COMPONENTS}
    assert everything.weights == sum(graphs.values())
    assert everything.buffers == buffer_bytes(bundle)
    arena = max(cost.activations for cost in reckoned.values())
    assert everything.peak == everything.buffers + sum(cost.weights for cost in reckoned.values()) + arena
    assert everything.moved == 0
    turns = row(found, "onnxruntime", "fp32", ENCODERS_IN_TURNS)
    largest = max(ENCODERS, key=lambda name: reckoned[name].weights)
    in_turns = sum(reckoned[name].weights for name in ENCODERS if name != largest)
    assert everything.peak - turns.peak >= in_turns, "the arena is smaller, too, while an encoder is loaded"
    assert turns.weights == sum(size for name, size in graphs.items() if name == largest or name not in ENCODERS)
    least = row(found, "onnxruntime", "fp32", LEAST)
    assert least.peak == least.buffers + max(cost.weights + cost.activations for cost in reckoned.values())
    assert least.activations >= SESSION_BYTES
    assert least.moved == sum(cost.weights for cost in reckoned.values())
    for one in found.rows:
        assert one.peak == one.weights + one.activations + one.buffers
    assert decode_lines(encode_lines([found])) == [found]


def test_plans_by_their_compilers_counts(bundle_copy: Path):
    bundle = Bundle.open(bundle_copy)
    plans = add_plans(bundle, COVERAGE, streamable=("denoiser",))
    found, label = predict(bundle), "tensorrt 10.99.0 sm_90"
    everything = row(found, label, "fp32", ALL_RESIDENT)
    assert everything.weights == sum(plan.size_bytes for plan in plans.values())
    assert everything.activations == max(ACTIVATIONS.values())
    assert row(found, label, "fp32", LEAST).peak < everything.peak
    assert {one.precision for one in found.rows if one.executor == label} == {"fp32", "fp8", "nvfp4"}
    saved = bytes_saved(bundle)
    for name in ("fp8", "nvfp4"):
        narrow = row(found, label, name, ALL_RESIDENT)
        assert everything.peak - narrow.peak == saved[name]
        assert narrow.activations == everything.activations
    some = next(PlanStore.of(bundle.path).entries())
    some.path.unlink()
    assert {one.executor for one in predict(bundle).rows} == {"onnxruntime"}


@pytest.mark.parametrize("recipe", ["fp8", "nvfp4"])
def test_narrower_weights_are_as_large_as_quantized_ones(bundle: Bundle, recipe: str, tmp_path: Path):
    quantized = quantize_bundle(bundle, tmp_path / recipe, make_recipe(recipe), made_up(bundle))
    saved = bundle.graph("denoiser").weight_bytes - quantized.graph("denoiser").weight_bytes
    assert bytes_saved(bundle)[recipe] == saved


def test_a_quantized_bundle_is_as_it_is(bundle: Bundle):
    record = QuantizationRecord(recipe="nvfp4-svd", recipe_sha256="", calibration_sha256="", products={})
    graphs = {**bundle.manifest.graphs, "denoiser": replace(bundle.graph("denoiser"), quantization=record)}
    quantized = replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
    assert {one.precision for one in predict(quantized).rows} == {"nvfp4-svd"}


def test_without_plans_graphs_are_not_read(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    """Whoever only runs bundles has no onnx package."""
    monkeypatch.setattr(plan_only, "bytes_saved", lambda bundle: pytest.fail("graphs were read"))
    assert {one.executor for one in predict(bundle).rows} == {"onnxruntime"}


def test_a_budget_has_a_row_where_it_suffices(bundle: Bundle, caplog: pytest.LogCaptureFixture):
    least = row(predict(bundle), "onnxruntime", "fp32", LEAST).peak
    found = predict(bundle, least)
    within = [one for one in found.rows if one.residency.startswith("within")]
    assert [one.precision for one in within] == ["fp32"]
    assert all(one.peak <= least for one in within)
    assert not any(one.residency.startswith("within") for one in predict(bundle, 1000).rows)
    assert "too little for this bundle" in caplog.text


def test_predicted_beside_measured():
    asked = Predicted(
        executor="onnxruntime", precision="bf16", residency=ALL_RESIDENT, weights=70, activations=20, buffers=10,
        peak=100, moved=0,
    )  # fmt: skip
    memory = Memory(
        components={"t5": ComponentMemory(weights=40, reckoned=50), "clip": ComponentMemory(weights=5, reckoned=5)},
        arena=0, buffers=7, graphs=2, device_peak=95, host_peak=1, host_anonymous=1,
    )  # fmt: skip
    run = EngineRun(
        engine="kontext-trt", executor="onnxruntime (cuda:0)", bundle=None, precision="bf16", cold={}, warm={},
        memory=memory, clocks=None,
    )  # fmt: skip
    found = check(Prediction(rows=(asked,)), run)
    assert found.rows == (
        Checked(what="weights", predicted=70, measured=45),
        Checked(what="buffers", predicted=10, measured=9),
        Checked(what="peak", predicted=100, measured=95),
    )
    assert decode_lines(encode_lines([found])) == [found]
    plans = msgspec.structs.replace(asked, executor="tensorrt 10.99.0 sm_90")
    planned = msgspec.structs.replace(
        run, executor="tensorrt 10.99.0 (cuda:0)", memory=msgspec.structs.replace(memory, arena=19)
    )
    assert (
        Checked(what="activations", predicted=20, measured=19) in check(Prediction(rows=(asked, plans)), planned).rows
    )
    budgeted = msgspec.structs.replace(asked, residency=within(1 << 30))
    assert [one.what for one in check(Prediction(rows=(budgeted,)), run, within(1 << 30)).rows] == ["buffers", "peak"]
    both = Prediction(rows=(msgspec.structs.replace(plans, executor="tensorrt 10.99.0 sm_80", weights=1), plans))
    assert check(both, planned, capability="sm_90").executor == "tensorrt 10.99.0 sm_90"
    with pytest.raises(ValueError, match=r"nothing was predicted for tensorrt 10.99.0 \(cuda:0\)"):
        check(both, planned, capability="sm_120")
    with pytest.raises(ValueError, match=r"nothing was predicted for onnxruntime \(cpu\), fp32, all resident"):
        check(Prediction(rows=(asked,)), msgspec.structs.replace(run, executor="onnxruntime (cpu)", precision="fp32"))

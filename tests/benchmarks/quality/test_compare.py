"""A comparison of the tiny bundle with its quantized ones: what it finds, what it writes, what it advises."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kontext_trt import Bundle, Device, QuantizationError
from kontext_trt.benchmarks.quality import real_runs
from kontext_trt.benchmarks.quality.compare import compare_bundles
from kontext_trt.benchmarks.quality.compare_options import CompareCase, CompareOptions
from kontext_trt.benchmarks.quality.report import Comparison, budget_advice, tables
from kontext_trt.engine.errors import ExecutorError
from kontext_trt.engine.system.gpus import Gpu
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle

SIZE = (64, 48)
CASES = (CompareCase(prompt="a red fox", seed=0, size=SIZE),)


def options(**fields: object) -> CompareOptions:
    return CompareOptions(steps=2, device=TorchDevice.CPU, **fields)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def compared(
    bundle_path: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path, Bundle]:
    """FP8 in few layers, so that looking at each does not take long; 60 dB are more than they leave."""
    reference = Bundle.open(bundle_path)
    keep = ("transformer_blocks.1", "transformer_blocks.0.ff_context", "transformer_blocks.0.attn")
    recipe = make_recipe("fp8", keep=(*keep, "single_transformer_blocks.0.attn"))
    other = quantize_bundle(reference, tmp_path_factory.mktemp("compared") / "fp8", recipe, calibration)
    made, folder = compare_bundles(reference, other, CASES, options(budget_db=55.0))
    return made, folder, other


def test_errors_grow_and_are_of_fp8s_size(compared: tuple[Comparison, Path, Bundle]) -> None:
    made, *_ = compared
    (case,) = made.cases
    assert [step.step for step in case.steps] == [1, 2]
    assert 30 < case.steps[-1].sqnr_db <= case.steps[0].sqnr_db + 1
    assert case.steps[-1].cosine > 0.999
    assert case.steps[-1].relative == pytest.approx(10 ** (-case.steps[-1].sqnr_db / 20))
    assert case.psnr_db > 30
    assert 0.9 < case.ssim <= 1
    blocks = {(error.block, error.stream): error.sqnr_db for error in made.blocks}
    assert set(blocks) == {
        *((f"transformer_blocks.{i}", stream) for i in (0, 1) for stream in ("text", "image")),
        *((f"single_transformer_blocks.{i}", "") for i in (0, 1)),
    }
    assert blocks["transformer_blocks.0", "text"] is None or blocks["transformer_blocks.0", "text"] > 90, "kept"
    assert 30 < blocks["single_transformer_blocks.1", ""] < 80


def test_layers_are_ordered_and_add_up(compared: tuple[Comparison, Path, Bundle]) -> None:
    """Noises of layers are nearly independent: together they are nearly what all layers have at once."""
    made, *_ = compared
    noises = [error.noise for error in made.layers]
    assert noises == sorted(noises, reverse=True)
    assert len(noises) == 2 + 2 + 5
    assert sum(error.share for error in made.layers) == pytest.approx(1)
    assert made.prediction_sqnr_db is not None
    assert sum(noises) == pytest.approx(10 ** (-made.prediction_sqnr_db / 10), rel=0.5)
    assert made.layers[0].gain_db > made.layers[-1].gain_db > 0


def test_what_is_advised_meets_the_budget(
    compared: tuple[Comparison, Path, Bundle], calibration: Calibration, bundle: Bundle, tmp_path: Path
) -> None:
    made, *_ = compared
    assert made.prediction_sqnr_db is not None
    assert made.kept_sqnr_db is not None
    assert made.prediction_sqnr_db < 55 <= made.kept_sqnr_db
    assert made.keep == tuple(error.layer for error in made.layers[: len(made.keep)])
    recipe = make_recipe("fp8", keep=(*compared[2].graph("denoiser").quantization.kept, *made.keep))  # pyright: ignore[reportOptionalMemberAccess]
    better = quantize_bundle(bundle, tmp_path / "better", recipe, calibration)
    again, _ = compare_bundles(bundle, better, CASES, options(layers=False))
    assert again.prediction_sqnr_db == pytest.approx(made.kept_sqnr_db, abs=0.5)
    assert again.layers == ()


def test_the_report_is_in_the_bundle(compared: tuple[Comparison, Path, Bundle]) -> None:
    made, folder, other = compared
    assert folder.is_relative_to(other.path)
    written = json.loads((folder / "comparison.json").read_text())
    assert written["recipe"] == "fp8"
    assert written["layers"][0]["layer"] == made.layers[0].layer
    with Image.open(folder / "pictures-1.png") as pictures:
        assert pictures.size[0] > 3 * SIZE[0]
    with Image.open(folder / "errors.png") as plot:
        assert plot.size[1] > plot.size[0]
        colours = plot.convert("RGB").getcolors(1 << 16) or []
    assert {(31, 96, 170), (200, 90, 30)} <= {colour for _, colour in colours}, "two lines"
    assert other.verify().problems == ()


def test_advice_is_options_unless_they_would_leave_hardly_anything(
    compared: tuple[Comparison, Path, Bundle],
) -> None:
    made, *_ = compared
    names = tuple(error.layer for error in made.layers)
    few = replace(made, keep=names[:2], kept_sqnr_db=56.0)
    assert (
        budget_advice(few)
        == f"for 55 dB keep 2 of 9 layers, which gives 56.0 dB: --keep '{names[0]}' --keep '{names[1]}'"
    )
    many = budget_advice(replace(made, keep=names[:5]))
    assert many.startswith(
        "for 55 dB 5 of 9 layers would have to be kept; with all of them quantized the prediction has "
    )
    assert "Hardly anything would be quantized: ask for less with --budget" in many
    assert "--keep" not in many
    assert budget_advice(replace(made, keep=())).startswith("for 55 dB nothing has to be kept; ")
    assert budget_advice(replace(made, budget_db=None)) == ""


def test_swapped_bundles_are_refused(bundle: Bundle, compared: tuple[Comparison, Path, Bundle]) -> None:
    other = compared[2]
    with pytest.raises(
        QuantizationError, match=r"is not: the first bundle .*\. Swap them: kontext-trt compare "
    ) as refusal:
        compare_bundles(other, bundle, CASES, options())
    assert str(refusal.value).endswith(f"{bundle.path} {other.path}")
    assert not (bundle.path / "reports").exists()


def test_a_bundle_does_not_differ_from_itself(bundle_copy: Path) -> None:
    bundle = Bundle.open(bundle_copy)
    own = bundle.own_folder("reports")
    earlier = own / f"against-{bundle.fingerprint[:12]}"
    earlier.mkdir()
    made, folder = compare_bundles(bundle, bundle, CASES, options())
    assert folder == own / f"{earlier.name}-2", "what was found before is kept"
    assert not list(earlier.iterdir())
    assert made.cases[0].steps[-1].relative == 0
    assert made.cases[0].ssim == pytest.approx(1)
    assert made.layers == ()


def test_the_runtime_makes_what_is_emulated(fused_path: Path, fused_quantized, tmp_path: Path):
    """Bodies of fused operators, by ONNX Runtime on the CPU: nearer to the emulation than FP8 is to what it was."""
    quantized = Bundle.open(shutil.copytree(fused_quantized("fp8").path, tmp_path / "fp8"))
    made, folder = compare_bundles(Bundle.open(fused_path), quantized, CASES, options(layers=False, real=Device.CPU))
    (case,) = made.cases
    assert made.real_executor == "onnxruntime (cpu)"
    assert case.real is not None
    assert case.real.psnr_db > case.psnr_db + 6
    assert case.real.latents_sqnr_db > case.steps[-1].sqnr_db + 6
    shown = list(tables(made, 3))
    columns, rows = shown[1]
    assert columns[0] == "onnxruntime (cpu), beside the emulation"
    assert f"{case.real.psnr_db:.1f}" in next(iter(rows))
    written = json.loads((folder / "comparison.json").read_text())
    equal = math.isinf(case.real.psnr_db)  # with one thread every byte may be the same, and JSON has no infinity
    assert written["cases"][0]["real"]["psnr_db"] == (None if equal else pytest.approx(case.real.psnr_db))
    with Image.open(folder / "for-real-1.png") as pictures:
        assert pictures.size[0] > 3 * SIZE[0]


def test_what_the_runtime_cannot_run_is_refused_first(
    bundle: Bundle, compared: tuple[Comparison, Path, Bundle], fused_path: Path, fused_quantized, monkeypatch
) -> None:
    for other in (compared[2], Bundle.open(fused_path)):
        with pytest.raises(QuantizationError, match="has no fused operators in FP8, so it is only emulated: leave out"):
            compare_bundles(bundle, other, CASES, options(real=Device.CPU))
    quantized = fused_quantized("fp8")
    monkeypatch.setattr(real_runs, "find_gpus", lambda: ((), "the driver is not installed"))
    with pytest.raises(ExecutorError, match="--executor cuda needs a GPU: the driver is not installed"):
        compare_bundles(Bundle.open(fused_path), quantized, CASES, options(real=Device.CUDA))
    old = Gpu(index=0, name="A100", major=8, minor=0, memory_bytes=1)
    monkeypatch.setattr(real_runs, "find_gpus", lambda: ((old,), ""))
    with pytest.raises(ExecutorError, match=r"the FP8 kernels of .* do not run here: .*denoiser is in fp32"):
        compare_bundles(Bundle.open(fused_path), quantized, CASES, options(real=Device.CUDA))


def test_refusals(bundle: Bundle, compared: tuple[Comparison, Path, Bundle], wide_bundles) -> None:
    from kontext_trt.engine.components import Precision

    with pytest.raises(QuantizationError, match="are bundles of different models"):
        compare_bundles(bundle, wide_bundles(Precision.BF16), CASES, options())
    with pytest.raises(QuantizationError, match=r"computes in bf16 and .* in fp32, and what .* --precision"):
        compare_bundles(wide_bundles(Precision.BF16), wide_bundles(Precision.FP32), CASES, options())
    with pytest.raises(QuantizationError, match="needs a request at least"):
        compare_bundles(bundle, compared[2], (), options())

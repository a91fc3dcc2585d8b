"""ComfyUI's `fp8_scaled` files: graphs read their FP8 weights as they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from building import Site
from quick_calibration import QUICK
from safetensors.torch import load_file
from single_files import write_models_folder

from kontext_trt import Bundle, Kontext, QuantizationError
from kontext_trt.engine.components import Precision
from kontext_trt.engine.flavour import FlavourName, load_flavour
from kontext_trt.engine.plans.coverage import Coverage
from kontext_trt.engine.plans.targets import make_target
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.emulate.bundle_modules import BundleGraph, read_tensor
from kontext_trt.export.emulate.emulation import QuantizedLinear, emulated_layers
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.graphs.weights import stored_precision
from kontext_trt.export.quantize.calibrate import calibrate_bundle
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu

NAME = "single_transformer_blocks.0.attn.to_k"


@pytest.fixture(scope="module")
def models(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comfy") / "models"
    write_models_folder(checkpoint_path, folder, fp8=True)
    return folder


@pytest.fixture(scope="module")
def stored(models: Path) -> Bundle:
    """Computing in float32, which the CPU can."""
    options = ExportOptions(precision=Precision.FP32)
    return export_bundle(open_checkpoint(models), models.parent / "stored", options)


@pytest.fixture(scope="module")
def requantized(stored: Bundle, calibration: Calibration, models: Path) -> Bundle:
    """Activations in FP8, too, with another checkpoint's ranges, which are near enough."""
    return quantize_bundle(stored, models.parent / "fp8", make_recipe("fp8"), calibration)


def test_weights_are_the_files_own_bytes(stored: Bundle, models: Path) -> None:
    file = next((models / "diffusion_models").glob("*fp8_scaled*"))
    graph = BundleGraph.read(stored, "denoiser")
    weight = graph.initializers[f"{NAME}.weight"]
    assert weight.dtype == ir.DataType.FLOAT8E4M3FN
    assert isinstance(weight.const_value, ir.ExternalTensor)
    assert Path(weight.const_value.path).stat().st_ino == file.stat().st_ino
    fused = load_file(file)["single_blocks.0.linear1.weight"]
    hidden = weight.shape[0] if weight.shape else 0
    assert torch.equal(read_tensor(weight).view(torch.uint8), fused[hidden : 2 * hidden].view(torch.uint8))
    quantization = stored.graph("denoiser").quantization
    assert quantization is not None
    assert (quantization.recipe, quantization.products) == ("as stored", {"fp8_weights": 34})


def test_torch_computes_what_onnx_runtime_does(stored: Bundle, picture) -> None:
    """That ONNX Runtime makes the picture of the weights scaled back, `test_checkpoint` has."""
    results = []
    for executor in (OnnxRuntimeCpu(stored), TorchExecutor(stored, TorchDevice.CPU)):
        with Kontext(stored, executor) as kontext:
            results.append(kontext.edit(picture(96, 80), "x", steps=2, seed=0).outputs[0].latents)
    np.testing.assert_allclose(*results, atol=1e-4)


def test_it_can_be_calibrated(stored: Bundle, samples: Path, calibration: Calibration, tmp_path: Path) -> None:
    found = calibrate_bundle(stored, samples, tmp_path / "c.json", QUICK)
    assert found.observations.keys() == calibration.observations.keys()
    for name, one in found.observations.items():
        assert one.amax == pytest.approx(calibration.observations[name].amax, rel=0.2), "FP8 weights are near"


def test_quantizing_its_activations_writes_no_weight(requantized: Bundle, stored: Bundle) -> None:
    (new,) = {record.path for record in requantized.manifest.weights} - {r.path for r in stored.manifest.weights}
    assert (requantized.path / new).stat().st_size < 100, "a header"
    layer = emulated_layers(BundleGraph.read(requantized, "denoiser"))[NAME]
    assert isinstance(layer, QuantizedLinear)
    assert layer.input_format == "fp8"
    assert layer.get_buffer("weight_scale").ndim == 0, "the file's own scale"


def test_it_can_become_nvfp4(stored: Bundle, calibration: Calibration, tmp_path: Path) -> None:
    made = quantize_bundle(stored, tmp_path / "nvfp4", make_recipe("nvfp4"), calibration)
    before, after = (emulated_layers(BundleGraph.read(one, "denoiser"))[NAME] for one in (stored, made))
    assert isinstance(before, QuantizedLinear)
    assert isinstance(after, QuantizedLinear)
    wanted, found = (layer.full_weight(torch.float32) for layer in (before, after))
    assert (found - wanted).norm() < 0.12 * wanted.norm()
    with pytest.raises(QuantizationError, match="quantized already"):
        quantize_bundle(made, tmp_path / "again", make_recipe("fp8"), calibration)


def test_the_compiler_takes_both(stored: Bundle, requantized: Bundle) -> None:
    """As stored, products are in the graph's own type over FP8 weights; quantized, in FP8."""
    rtx, coverage = load_flavour(FlavourName.TENSORRT_RTX), Coverage(sizes=((96, 192), (128, 128)), max_steps=8)
    for bundle, formats in ((stored, {"fp32"}), (requantized, {"fp32", "fp8"})):
        census = Site(bundle, make_target(rtx, "sm_89", ())).build("denoiser", coverage).manifest.census
        assert set(census.gemms) == formats
        assert census.strays == ()


def test_it_computes_in_bf16_unless_told_otherwise(models: Path) -> None:
    weights = open_checkpoint(models).transformer.weights.views
    assert stored_precision(weights.values()) is Precision.BF16

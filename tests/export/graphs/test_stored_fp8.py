"""ComfyUI's `fp8_scaled` files: graphs read their FP8 weights as they lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from building import Site
from comfy_kitchen.tensor import TensorCoreFP8Layout
from quick_calibration import QUICK
from safetensors.torch import load_file, save_file
from single_files import write_models_folder
from torch import Tensor

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
from kontext_trt.export.export_quantized import export_quantized
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


@pytest.mark.check
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


def rewritten(models: Path, folder: Path, change: Callable[[str, dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """A copy of a `models` folder whose transformer and T5 are changed."""
    shutil.copytree(models, folder)
    for part in ("diffusion_models", "text_encoders"):
        for file in (folder / part).glob("*.safetensors"):
            save_file(change(file.stem, load_file(file)), file)
    return folder


def as_plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is in FP8, in float32 instead; scales are multiplied in and gone."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name.removesuffix("weight") + "weight_scale", torch.tensor(1.0))
        if not name.endswith(("_scale", "comfy_quant")):
            wide = tensor.float() if tensor.is_floating_point() else tensor
            out[name] = wide * scale if name.endswith(".weight") and wide.ndim == 2 else wide
    return out


def latents(bundle: Bundle, picture) -> np.ndarray:
    with Kontext(bundle, OnnxRuntimeCpu(bundle)) as kontext:
        return kontext.edit(picture(96, 80), "x", steps=2, seed=0).outputs[0].latents


FP32 = ExportOptions(precision=Precision.FP32)


@pytest.fixture(scope="module")
def everywhere(models_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain FP8 in every tensor, as `flux1-dev-fp8` and `t5xxl_fp8_e4m3fn` are: no scales, embeddings, norms."""

    def change(stem: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if stem == "clip_l":
            return tensors
        return {
            name: tensor.to(torch.float8_e4m3fn) if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }

    return rewritten(models_path, tmp_path_factory.mktemp("plain") / "models", change)


class TestWhatAGraphCannotReadAsFp8:
    def test_is_converted_and_the_picture_is_that_of_the_same_values(self, everywhere: Path, picture, tmp_path: Path):
        plain = rewritten(everywhere, tmp_path / "plain", lambda _, tensors: as_plain(tensors))
        made = [export_bundle(path, tmp_path / f"{path.name}.bundle", FP32) for path in (everywhere, plain)]
        np.testing.assert_allclose(*(latents(one, picture) for one in made), atol=1e-5)
        for name in ("conditioner", "denoiser", "t5"):
            record = made[0].graph(name).quantization
            assert record is not None
            assert record.recipe == "as stored"
        types = {name: value.dtype for name, value in BundleGraph.read(made[0], "conditioner").initializers.items()}
        assert types["time_text_embed.timestep_embedder.linear_1.weight"] == ir.DataType.FLOAT
        assert types["transformer_blocks.0.norm1.linear.weight"] == ir.DataType.FLOAT8E4M3FN
        types = {name: value.dtype for name, value in BundleGraph.read(made[0], "t5").initializers.items()}
        assert {dtype for name, dtype in types.items() if "embed" in name} == {ir.DataType.FLOAT}

    def test_everything_can_be_converted(self, everywhere: Path, tmp_path: Path):
        made = export_bundle(everywhere, tmp_path / "b", replace(FP32, fp8_as_stored=False))
        assert {made.graph(name).quantization for name in made.manifest.graphs} == {None}


def scaled(models: Path, folder: Path, *, rows: bool = False, inputs: float | None = None, full: str = "") -> Path:
    """ComfyUI's present form: FP8 in the blocks, with scales per row, of inputs, and products in full precision."""

    def change(stem: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            out[name] = tensor
            blocks = "_blocks." in name or "encoder.block" in name
            if stem == "clip_l" or tensor.ndim != 2 or not name.endswith(".weight") or not blocks:
                continue
            layer = name.removesuffix(".weight")
            amax = tensor.abs().amax(1, keepdim=True) if rows else tensor.abs().max()
            out[f"{layer}.weight_scale"] = (amax.float() / 448).clamp(min=1e-6)
            out[name] = (tensor / out[f"{layer}.weight_scale"]).to(torch.float8_e4m3fn)
            if inputs is not None:
                out[f"{layer}.input_scale"] = torch.tensor(inputs)
            said = {"format": "float8_e4m3fn", "full_precision_matrix_mult": bool(full) and full in name}
            out[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
        return out

    return rewritten(models, folder, change)


class TestScalesPerRow:
    def test_graphs_read_them_where_they_lie(self, models_path: Path, tmp_path: Path, picture):
        models = scaled(models_path, tmp_path / "models", rows=True)
        made = export_bundle(models, tmp_path / "rows.bundle", FP32)
        scale = BundleGraph.read(made, "denoiser").initializers[f"{NAME}.weight_scale"]
        assert isinstance(scale.const_value, ir.ExternalTensor)
        file = next((models / "diffusion_models").glob("*.safetensors"))
        assert Path(scale.const_value.path).stat().st_ino == file.stat().st_ino
        hidden = scale.shape[0] if scale.shape else 0
        wanted = load_file(file)["single_blocks.0.linear1.weight_scale"][hidden : 2 * hidden, 0]
        assert torch.equal(read_tensor(scale), wanted)
        plain = rewritten(models, tmp_path / "plain", lambda _, tensors: as_plain(tensors))
        other = export_bundle(plain, tmp_path / "plain.bundle", FP32)
        np.testing.assert_allclose(latents(made, picture), latents(other, picture), atol=1e-5)

    def test_it_can_become_nvfp4(self, models_path: Path, calibration: Calibration, tmp_path: Path):
        models = scaled(models_path, tmp_path / "models", rows=True)
        stored = export_bundle(models, tmp_path / "rows.bundle", FP32)
        made = quantize_bundle(stored, tmp_path / "nvfp4", make_recipe("nvfp4"), calibration)
        before, after = (emulated_layers(BundleGraph.read(one, "denoiser"))[NAME] for one in (stored, made))
        assert isinstance(before, QuantizedLinear)
        assert isinstance(after, QuantizedLinear)
        wanted, found = (layer.full_weight(torch.float32) for layer in (before, after))
        assert (found - wanted).norm() < 0.12 * wanted.norm()


@pytest.fixture(scope="module")
def with_inputs(models_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "models"
    return scaled(models_path, folder, inputs=0.0625, full="double_blocks.0.")


@pytest.fixture(scope="module")
def calibrated(with_inputs: Path) -> Bundle:
    return export_bundle(with_inputs, with_inputs.parent / "bundle", FP32)


class TestInputScales:
    def test_they_are_a_calibration(self, calibrated: Bundle):
        layers = emulated_layers(BundleGraph.read(calibrated, "denoiser"))
        quantized = {name for name, one in layers.items() if isinstance(one, QuantizedLinear) and one.input_format}
        alone = {name for name, one in layers.items() if isinstance(one, QuantizedLinear) and not one.input_format}
        assert {name.partition(".")[0] for name in quantized} == {"transformer_blocks", "single_transformer_blocks"}
        assert alone == {name for name in layers if name.startswith("transformer_blocks.0.")}, "full precision"
        assert {float(layers[name].get_buffer("input_scale")) for name in quantized} == {0.0625}
        for name in ("conditioner", "t5"):
            parts = emulated_layers(BundleGraph.read(calibrated, name)).values()
            assert not [one for one in parts if isinstance(one, QuantizedLinear) and one.input_format]
        record = calibrated.graph("denoiser").quantization
        assert record is not None
        assert record.products == {"fp8": len(quantized), "fp8_weights": len(alone)}
        assert record.calibration_sha256

    def test_a_product_is_comfy_kitchens(self, calibrated: Bundle, with_inputs: Path):
        """Its own rounding of the input, and float32 products of the dequantized values."""
        tensors = load_file(next((with_inputs / "diffusion_models").glob("*.safetensors")))
        layer = emulated_layers(BundleGraph.read(calibrated, "denoiser"))["transformer_blocks.1.attn.to_out.0"]
        name = "double_blocks.1.img_attn.proj"
        torch.manual_seed(0)
        x = torch.randn(7, tensors[f"{name}.weight"].shape[1])
        codes, params = TensorCoreFP8Layout.quantize(x, scale=tensors[f"{name}.input_scale"])
        rounded = TensorCoreFP8Layout.dequantize(codes, params)
        weight = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"]
        wanted = torch.nn.functional.linear(rounded, weight, tensors[f"{name}.bias"])
        torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=0)

    def test_torch_computes_what_onnx_runtime_does(self, calibrated: Bundle, picture):
        with Kontext(calibrated, TorchExecutor(calibrated, TorchDevice.CPU)) as kontext:
            wanted = kontext.edit(picture(96, 80), "x", steps=2, seed=0).outputs[0].latents
        found = latents(calibrated, picture)
        assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max(), "a value may be rounded the other way"

    def test_it_is_not_quantized_again(
        self, calibrated: Bundle, calibration: Calibration, samples: Path, tmp_path: Path
    ):
        with pytest.raises(QuantizationError, match=r"quantized already .as stored.*--no-input-scales"):
            quantize_bundle(calibrated, tmp_path / "again", make_recipe("fp8"), calibration)
        with pytest.raises(QuantizationError, match=r"is quantized already; .*--no-input-scales"):
            calibrate_bundle(calibrated, samples, tmp_path / "c.json", QUICK)

    def test_they_can_be_left(self, with_inputs: Path, tmp_path: Path, calibration: Calibration):
        made = export_bundle(with_inputs, tmp_path / "left", replace(FP32, input_scales=False))
        record = made.graph("denoiser").quantization
        assert record is not None
        assert record.products.keys() == {"fp8_weights"}
        recipe = make_recipe("fp8")
        quantized = export_quantized(with_inputs, tmp_path / "fp8", recipe, FP32, calibration=calibration)
        record = quantized.graph("denoiser").quantization
        assert record is not None
        assert record.recipe == "fp8"

    @pytest.mark.check
    def test_the_compiler_multiplies_in_fp8(self, calibrated: Bundle):
        rtx, coverage = load_flavour(FlavourName.TENSORRT_RTX), Coverage(sizes=((96, 192), (128, 128)), max_steps=8)
        census = Site(calibrated, make_target(rtx, "sm_89", ())).build("denoiser", coverage).manifest.census
        assert set(census.gemms) == {"fp32", "fp8"}
        assert census.strays == ()

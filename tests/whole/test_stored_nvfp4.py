"""NVFP4 files: graphs have their codes, scales and scales of inputs; what no product takes is dequantized."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from nvfp4_files import nvfp4_tensors, write_nvfp4
from safetensors.torch import load_file, save_file
from single_files import bfl_transformer
from torch import Tensor, nn

from kontext_trt import Bundle, Kontext, QuantizationError
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.export.checkpoint import CheckpointFiles
from kontext_trt.export.emulate.bundle_modules import BundleGraph
from kontext_trt.export.emulate.emulation import QuantizedLinear, emulated_layers
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.export.graphs.formats import fake_nvfp4
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu

LAYOUTS = ("swizzled-high", "linear-low")
INPUT_SCALE = 0.002
WITHOUT_SCALE = "double_blocks.1.txt_mlp.2.weight"
"""A layer whose input has no scale in the file."""
FP32 = ExportOptions(precision=Precision.FP32)


@pytest.fixture(scope="module")
def tensors(checkpoint_path: Path) -> dict[str, Tensor]:
    return bfl_transformer(load_file(checkpoint_path / "transformer/diffusion_pytorch_model.safetensors"))


@pytest.fixture(scope="module")
def file(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """As BFL ships it, and its values."""
    path = tmp_path_factory.mktemp("nvfp4") / "bfl.safetensors"
    stored, values = nvfp4_tensors(tensors, input_scale=INPUT_SCALE)
    del stored[WITHOUT_SCALE.replace("weight", "input_scale")]
    save_file(stored, path)
    return path, values


def export(checkpoint: Path, transformer: Path, to: Path, options: ExportOptions, layout: str | None = None) -> Bundle:
    files = CheckpointFiles(transformer=transformer, trust_layout=layout)
    return export_bundle(checkpoint, to, options, files=files)


@pytest.fixture(scope="module")
def stored(checkpoint_path: Path, file: tuple[Path, dict[str, Tensor]]) -> Bundle:
    """Computing in float32; the layout of random weights cannot be told."""
    return export(checkpoint_path, file[0], file[0].parent / "stored", FP32, "swizzled-high")


@pytest.fixture(scope="module")
def dequantized(checkpoint_path: Path, file: tuple[Path, dict[str, Tensor]]) -> Bundle:
    """The values of the file, saved in float32 and exported."""
    path, values = file
    save_file({name: tensor.contiguous() for name, tensor in values.items()}, path.parent / "values.safetensors")
    return export(checkpoint_path, path.parent / "values.safetensors", path.parent / "dequantized", FP32)


def latents(bundle: Bundle, executor, picture: Callable) -> np.ndarray:
    with Kontext(bundle, executor) as kontext:
        return kontext.edit(picture(96, 80), "x", steps=2, seed=0).outputs[0].latents


def aligned(executor: TorchExecutor) -> None:
    """Copy all weights: products of mapped ones sum in another order, and rounding makes last bits into whole steps."""
    for component in COMPONENTS:
        for parameter in executor.module(component).parameters():
            parameter.data = parameter.data.clone()


def rounding_inputs(module: nn.Module, names: set[str]) -> None:
    """Make linear layers of a plain network round their inputs to NVFP4."""
    for name, layer in module.named_modules():
        if name in names:
            layer.register_forward_pre_hook(lambda _, given: (fake_nvfp4(given[0], torch.tensor(INPUT_SCALE)),))


def test_graphs_have_the_files_codes_and_scales(stored: Bundle, file: tuple[Path, dict[str, Tensor]]) -> None:
    _, values = file
    graph = BundleGraph.read(stored, "denoiser")
    layers = {name: one for name, one in emulated_layers(graph).items() if isinstance(one, QuantizedLinear)}
    fused = values["single_blocks.1.linear1.weight"]
    hidden = fused.shape[1]
    for i, name in enumerate(("attn.to_q", "attn.to_k", "attn.to_v")):
        layer = layers[f"single_transformer_blocks.1.{name}"]
        assert torch.equal(layer.full_weight(torch.float32), fused[i * hidden : (i + 1) * hidden])
        assert layer.input_format == "nvfp4"
        assert layer.get_buffer("input_scale").item() == pytest.approx(INPUT_SCALE)
    weight = graph.initializers["single_transformer_blocks.1.attn.to_q.weight"]
    assert weight.dtype == ir.DataType.FLOAT4E2M1


def test_what_no_product_takes_is_dequantized(stored: Bundle) -> None:
    """Modulation, which no recipe quantizes, and a layer without a scale of its input."""
    denoiser = emulated_layers(BundleGraph.read(stored, "denoiser"))
    assert "transformer_blocks.1.ff_context.net.0.proj" in denoiser
    assert "transformer_blocks.1.ff_context.net.2" not in denoiser
    assert emulated_layers(BundleGraph.read(stored, "conditioner")) == {}
    quantization = stored.graph("denoiser").quantization
    assert quantization is not None
    assert quantization.recipe == "as stored"
    assert quantization.products == {"nvfp4": 2 * 12 + 2 * 5 - 1}
    assert quantization.calibration_sha256, "the file's own scales"


@pytest.mark.check  # a second export, and torch rounds every input
def test_the_picture_is_that_of_the_dequantized_weights(stored: Bundle, dequantized: Bundle, picture) -> None:
    """With inputs rounded by the file's scales, in both."""
    plain, emulated = (TorchExecutor(one, TorchDevice.CPU) for one in (dequantized, stored))
    for executor in (plain, emulated):
        aligned(executor)
    rounding_inputs(plain.module("denoiser"), set(emulated_layers(BundleGraph.read(stored, "denoiser"))))
    wanted, found = latents(dequantized, plain, picture), latents(stored, emulated, picture)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    unrounded = latents(dequantized, TorchExecutor(dequantized, TorchDevice.CPU), picture)
    assert np.abs(unrounded - wanted).max() > 1e-3, "rounding shows"


@pytest.mark.check
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_onnx_runtime_makes_it_of_converted_weights(
    checkpoint_path: Path,
    file: tuple[Path, dict[str, Tensor]],
    dequantized: Bundle,
    tensors,
    tmp_path: Path,
    layout,
    picture,
) -> None:
    write_nvfp4(tmp_path / "one.safetensors", tensors, layout, input_scale=INPUT_SCALE)
    options = ExportOptions(precision=Precision.FP32, input_scales=False)
    made = export(checkpoint_path, tmp_path / "one.safetensors", tmp_path / "made", options, layout)
    assert made.graph("denoiser").quantization is None
    wanted, found = (latents(one, OnnxRuntimeCpu(one), picture) for one in (dequantized, made))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.check
def test_it_computes_in_bf16_unless_told_otherwise(
    checkpoint_path: Path, file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    tensors = {
        name: one.bfloat16() if one.dtype == torch.float32 and one.ndim else one
        for name, one in load_file(file[0]).items()
    }
    save_file(tensors, tmp_path / "bf16.safetensors")
    made = export(checkpoint_path, tmp_path / "bf16.safetensors", tmp_path / "made", ExportOptions(), "swizzled-high")
    assert made.graph("denoiser").precision is Precision.BF16
    assert len(emulated_layers(BundleGraph.read(made, "denoiser"))) == 33


@pytest.mark.check
def test_fused_operators_get_converted_weights(
    checkpoint_path: Path, file: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    options = ExportOptions(precision=Precision.FP32, operators=Operators.FUSED)
    made = export(checkpoint_path, file[0], tmp_path / "made", options, "swizzled-high")
    assert made.graph("denoiser").quantization is None


def test_it_is_not_quantized_again(stored: Bundle, calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"is quantized already \(as stored\); .* with --no-input-scales"):
        quantize_bundle(stored, tmp_path / "again", make_recipe("fp8"), calibration)

"""Quantized bundles: their weights, what they share, what is kept, what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from relisted import relist, relist_weights
from traced_graphs import Trace

from kontext_trt import Bundle, BundleError, QuantizationError
from kontext_trt.benchmarks.fixtures.bare_bundle import fill, strip
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.export.emulate.bundle_modules import BundleGraph, load_module, read_config, read_tensor
from kontext_trt.export.emulate.emulation import QuantizedLinear, emulated_layers
from kontext_trt.export.graphs.linears import find_linears
from kontext_trt.export.graphs.quantizer import GraphQuantizer
from kontext_trt.export.graphs.recipes import Fp8, make_recipe
from kontext_trt.export.graphs.trace import TraceOptions
from kontext_trt.export.quantize.calibration import Calibration
from kontext_trt.export.quantize.quantize_bundle import check_recipe, quantize_bundle
from kontext_trt.export.tiny import tiny_config

Quantized = Callable[[str], Bundle]


def layers(bundle: Bundle) -> dict[str, torch.nn.Module]:
    return emulated_layers(BundleGraph.read(bundle, "denoiser"))


def weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    module = load_module(BundleGraph.read(bundle, "denoiser"), read_config(bundle))
    return dict(module.named_parameters())


def relative_error(wanted: torch.Tensor, found: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


class TestWeights:
    @pytest.mark.parametrize("recipe", ["fp8", "nvfp4-svd"])
    def test_random_ones_are_of_ordinary_size(self, tiny_quantized: Quantized, recipe: str, tmp_path: Path) -> None:
        """Of a bare bundle, filled: codes and scales make matrices that keep activations as large as they were."""
        strip(tiny_quantized(recipe), tmp_path / "bare")
        fill(tmp_path / "bare")
        filled = Bundle.open(tmp_path / "bare")
        assert filled.verify().problems == ()
        for name, layer in layers(filled).items():
            assert isinstance(layer, QuantizedLinear)
            codes = layer.full_weight(torch.float32)
            assert 0.5 < float(codes.std()) * codes.shape[1] ** 0.5 < 0.9, name

    def test_fp8_weights_are_within_half_a_step_a_channel(self, bundle: Bundle, tiny_quantized: Quantized) -> None:
        wanted = weights(bundle)
        found = layers(tiny_quantized("fp8"))
        assert len(found) == 2 * 12 + 2 * 5
        for name, layer in found.items():
            assert isinstance(layer, QuantizedLinear)
            weight = wanted[f"{name}.weight"]
            step = weight.abs().amax(1, keepdim=True) / 448
            error = (layer.full_weight(torch.float32) - weight).abs()
            assert (error <= torch.maximum(weight.abs() / 16, step * 2**-10) * 1.001).all(), name
            assert torch.equal(layer.get_buffer("bias"), wanted[f"{name}.bias"])

    def test_a_branch_takes_the_largest_part(self, bundle: Bundle, tiny_quantized: Quantized) -> None:
        wanted = weights(bundle)
        plain, branched = layers(tiny_quantized("nvfp4")), layers(tiny_quantized("nvfp4-svd"))
        for name, layer in branched.items():
            assert isinstance(layer, QuantizedLinear)
            other = plain[name]
            assert isinstance(other, QuantizedLinear)
            weight = wanted[f"{name}.weight"]
            branch = layer._part("lora_up.weight") @ layer._part("lora_down.weight")
            exact = torch.linalg.svdvals(weight)[:32].square().sum()
            assert float(branch.square().sum()) == pytest.approx(float(exact), rel=0.04), (
                "of a random matrix, the hardest"
            )
            whole = layer.full_weight(torch.float32) + branch
            assert relative_error(weight, whole) < relative_error(weight, other.full_weight(torch.float32)) < 0.12

    def test_zero_channels_and_zero_weights_are_allowed(self, bundle_copy: Path, calibration, tmp_path: Path) -> None:
        """A channel without weights has no largest value to scale by."""
        bundle = Bundle.open(bundle_copy)
        name = "transformer_blocks.0.attn.to_q.weight"
        value = BundleGraph.read(bundle, "denoiser").initializers[name]
        assert isinstance(value.const_value, ir.ExternalTensor)
        file = Path(value.const_value.path)
        data = bytearray(file.read_bytes())
        start, size = value.const_value.offset or 0, read_tensor(value).nbytes
        data[start : start + size] = bytes(size)
        file.unlink()
        file.write_bytes(data)
        relist_weights(bundle_copy, f"graphs/weights/{file.name}")
        bundle = Bundle.open(bundle_copy)
        for recipe in ("fp8", "nvfp4-svd"):
            made = quantize_bundle(bundle, tmp_path / recipe, make_recipe(recipe), calibration)
            layer = layers(made)[name.removesuffix(".weight")]
            assert isinstance(layer, QuantizedLinear)
            assert not layer.full_weight(torch.float32).any()

    def test_nan_in_a_weight_is_refused(self, bundle_copy: Path, calibration, tmp_path: Path) -> None:
        bundle = Bundle.open(bundle_copy)
        value = BundleGraph.read(bundle, "denoiser").initializers["single_transformer_blocks.1.proj_out.weight"]
        assert isinstance(value.const_value, ir.ExternalTensor)
        file = Path(value.const_value.path)
        data = bytearray(file.read_bytes())
        data[(value.const_value.offset or 0) + 2000 :][:4] = b""
        data[(value.const_value.offset or 0) + 2000 : (value.const_value.offset or 0) + 2004] = b"\xff\xff\xff\x7f"
        file.unlink()
        file.write_bytes(data)
        relist_weights(bundle_copy, f"graphs/weights/{file.name}")
        bundle = Bundle.open(bundle_copy)
        for recipe in ("fp8", "nvfp4", "nvfp4-svd"):
            with pytest.raises(QuantizationError, match=r"weight of single_transformer_blocks\.1\.proj_out holds NaN"):
                quantize_bundle(bundle, tmp_path / "q", make_recipe(recipe), calibration)
            assert not (tmp_path / "q").exists(), "nothing is left behind"


class TestBundles:
    @pytest.mark.parametrize("recipe", ["fp8", "fp8-attention", "nvfp4", "nvfp4-svd"])
    def test_it_is_sound_and_says_what_it_is(self, tiny_quantized: Quantized, bundle: Bundle, recipe: str) -> None:
        made = tiny_quantized(recipe)
        assert made.verify().problems == ()
        assert made.fingerprint != bundle.fingerprint
        quantization = made.graph("denoiser").quantization
        assert quantization is not None
        assert quantization.recipe == recipe
        assert sum(quantization.products.values()) == 34 + (8 if recipe == "fp8-attention" else 0)
        assert quantization.calibration_sha256
        assert made.graph("conditioner") == bundle.graph("conditioner")

    def test_bytes_shrink_as_they_should(self, tiny_quantized: Quantized, bundle: Bundle) -> None:
        """FP8 a byte a weight and 4 a channel, NVFP4 half a byte and a sixteenth; biases, norms and embedders stay."""
        blocks = sum(
            tensor.numel() for name, tensor in weights(bundle).items() if tensor.ndim == 2 and "blocks" in name
        )
        rest = bundle.graph("denoiser").weight_bytes - 4 * blocks
        channels = sum(
            tensor.shape[0] for name, tensor in weights(bundle).items() if tensor.ndim == 2 and "blocks" in name
        )
        assert tiny_quantized("fp8").graph("denoiser").weight_bytes == rest + blocks + 4 * channels
        assert tiny_quantized("nvfp4").graph("denoiser").weight_bytes == rest + blocks * 9 // 16 + 4 * 34

    def test_what_does_not_change_is_shared(self, tiny_quantized: Quantized, bundle: Bundle) -> None:
        made = tiny_quantized("fp8")
        for record in bundle.manifest.weights:
            assert (made.path / record.path).stat().st_ino == (bundle.path / record.path).stat().st_ino
        (new,) = {record.path for record in made.manifest.weights} - {record.path for record in bundle.manifest.weights}
        assert new.endswith("denoiser.fp8.safetensors")
        assert Calibration.open(made.path / "calibration.json").complete

    def test_kept_layers_are_left_alone(self, bundle: Bundle, calibration: Calibration, tmp_path: Path) -> None:
        recipe = make_recipe("fp8-attention", keep=("single_transformer_blocks.1.*", "*.ff_context.*"))
        made = quantize_bundle(bundle, tmp_path / "q", recipe, calibration)
        found = layers(made)
        assert not [name for name in found if "single_transformer_blocks.1." in name or "ff_context" in name]
        assert len(found) == 34 - 5 - 4 + 3
        quantization = made.graph("denoiser").quantization
        assert quantization is not None
        assert quantization.kept == ("denoiser.single_transformer_blocks.1.*", "denoiser.*.ff_context.*")

    @pytest.mark.check  # a denoiser traced for this alone
    def test_below_opset_23_scales_have_the_type_of_what_they_scale(self, traced: Trace) -> None:
        name = "transformer_blocks.0.attn.to_q"
        options = TraceOptions(precision=Precision.BF16, operators=Operators.DECOMPOSED)
        model = traced(COMPONENTS["denoiser"], tiny_config(), options)
        quantizer = GraphQuantizer(model, Precision.BF16, {name: 1.0})
        quantizer.quantize(find_linears(model)[name], Fp8())
        for scale in (f"{name}.weight_scale", f"{name}.input_scale"):
            assert model.graph.initializers[scale].dtype == ir.DataType.BFLOAT16
        (quantize,) = (node for node in model.graph if node.op_type == "QuantizeLinear")
        x, scale, _ = quantize.inputs
        assert x is not None
        assert scale is not None
        assert scale.const_value is not None
        cast, stored = x.producer(), model.graph.initializers[f"{name}.input_scale"].const_value
        assert cast is not None
        assert cast.op_type == "Cast", "a reciprocal in bfloat16 would be off by up to 0.2 %"
        assert cast.attributes.get_int("to") == scale.dtype == ir.DataType.FLOAT
        assert stored is not None
        assert float(scale.const_value.numpy()) == float(stored.numpy()), "values return by the scale they left by"

    def test_a_percentile_narrows_the_range(self, bundle: Bundle, calibration: Calibration, tmp_path: Path) -> None:
        made = quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8", percentile=99), calibration)
        name = "transformer_blocks.0.ff.net.2"
        layer = layers(made)[name]
        seen = calibration.observations[name]
        assert float(layer.get_buffer("input_scale")) == pytest.approx(seen.percentile(99) / 448)
        assert seen.percentile(99) < seen.amax

    def test_the_networks_can_be_made_anew(self, bundle: Bundle) -> None:
        assert read_config(bundle).transformer == tiny_config().transformer
        assert read_config(bundle).clip == tiny_config().clip


def with_attention_edited(path: Path, edit: Callable[[ir.Node], None]) -> Bundle:
    """The bundle at a path with every attention operator of its denoiser edited."""
    model = ir.load(Bundle.open(path).open_graph("denoiser").path)
    for node in model.graph:
        if node.op_type == "Attention":
            edit(node)
    edited = path / "graphs/edited.onnx"
    ir.save(model, edited)
    relist(path, "graphs/denoiser.onnx", edited.read_bytes())
    return Bundle.open(path)


class TestRefusals:
    def test_a_product_of_one_factor(self, bundle: Bundle, tmp_path: Path) -> None:
        """Names of layers are looked for in whatever nodes a graph has."""
        path = Path(shutil.copytree(bundle.path, tmp_path / "bundle", copy_function=os.link))
        model = ir.load(bundle.open_graph("denoiser").path)
        product = next(node for node in model.graph if node.op_type == "MatMul")
        product.resize_inputs(1)
        edited = tmp_path / "edited.onnx"
        ir.save(model, edited)
        relist(path, "graphs/denoiser.onnx", edited.read_bytes())
        with pytest.raises(BundleError, match=r"denoiser.onnx is not a graph of this project's \(IndexError"):
            check_recipe(Bundle.open(path), make_recipe("fp8"))

    def test_without_ranges(self, bundle: Bundle, calibration: Calibration, tmp_path: Path) -> None:
        with pytest.raises(QuantizationError, match="the recipe fp8 needs the ranges of activations: --calibration"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8"))
        empty = replace(calibration, observations={})
        with pytest.raises(QuantizationError, match=r"no range for .*; calibrate this model .* or --keep"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8"), empty)

    def test_a_range_of_zero(self, bundle: Bundle, calibration: Calibration, tmp_path: Path) -> None:
        name = "single_transformer_blocks.0.proj_out"
        zero = replace(calibration.observations[name], amax=0.0)
        broken = replace(calibration, observations={**calibration.observations, name: zero})
        with pytest.raises(QuantizationError, match=rf"nothing but zeros at {name}.*or --keep {name}"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8"), broken)
        made = quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8", keep=(name,)), broken)
        assert name not in layers(made)

    def test_a_pattern_that_matches_nothing(self, bundle: Bundle, calibration: Calibration, tmp_path: Path) -> None:
        recipe = make_recipe("fp8", keep=("single_transformer_blocks.7.*",))
        with pytest.raises(QuantizationError, match=r"--keep denoiser\.single.*\.7\.\* matches no layer"):
            quantize_bundle(bundle, tmp_path / "q", recipe, calibration)

    @pytest.mark.parametrize(
        ("precision", "recipe", "words"),
        [
            (
                Precision.FP16,
                "fp8",
                "has fused operators in fp16, which are not quantized; .* --precision bf16, or fp32",
            ),
            (Precision.FP16, "fp8-attention", "has fused operators in fp16, which are not quantized"),
            (
                Precision.FP32,
                "nvfp4",
                "fused operators compute in FP8, and the recipe nvfp4 has another format; export",
            ),
        ],
    )
    def test_fused_operators_in_other_types(
        self, fused_path: Path, samples: Path, tmp_path: Path, precision: Precision, recipe: str, words: str
    ) -> None:
        """Before samples are calibrated on."""
        bundle = Bundle.open(fused_path)
        graphs = {**bundle.manifest.graphs, "denoiser": replace(bundle.graph("denoiser"), precision=precision)}
        bundle = replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
        with pytest.raises(QuantizationError, match=words):
            quantize_bundle(bundle, tmp_path / "q", make_recipe(recipe), samples)
        assert not any(tmp_path.iterdir())
        check_recipe(bundle, make_recipe("bf16", t5=True))

    def test_fp8_attention_of_a_decomposed_graph(
        self, bundle_copy: Path, calibration: Calibration, tmp_path: Path
    ) -> None:
        """Its operators are renamed: what a decomposed graph has instead does not matter."""

        def rename(node: ir.Node) -> None:
            node.op_type = "NotAttention"

        bundle = with_attention_edited(bundle_copy, rename)
        with pytest.raises(QuantizationError, match="has its attention decomposed, and this recipe needs it as one"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8-attention"), calibration)

    def test_fp8_attention_that_scales_its_queries_itself(
        self, bundle_copy: Path, calibration: Calibration, tmp_path: Path
    ) -> None:
        """Graphs of earlier exports: the calibrated range is that of scaled queries."""

        def forget_scale(node: ir.Node) -> None:
            del node.attributes["scale"]

        bundle = with_attention_edited(bundle_copy, forget_scale)
        with pytest.raises(QuantizationError, match="scales its queries itself, as exports by earlier versions do"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8-attention"), calibration)

    def test_twice_and_nothing_and_taken_names(
        self, tiny_quantized: Quantized, bundle: Bundle, calibration: Calibration, tmp_path: Path
    ) -> None:
        with pytest.raises(QuantizationError, match=r"is quantized already \(fp8\); quantize the bundle that"):
            quantize_bundle(tiny_quantized("fp8"), tmp_path / "q", make_recipe("nvfp4"), calibration)
        with pytest.raises(QuantizationError, match="the recipe bf16 quantizes nothing"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("bf16"), calibration)
        (tmp_path / "q").mkdir()
        (tmp_path / "q/file").touch()
        with pytest.raises(QuantizationError, match="exists; choose another name"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8"), calibration)
        with pytest.raises(QuantizationError, match="exists and is not a bundle"):
            quantize_bundle(bundle, tmp_path / "q", make_recipe("fp8"), calibration, overwrite=True)

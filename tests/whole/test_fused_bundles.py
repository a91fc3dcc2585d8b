"""Bundles in fused operators, run through their bodies: today's pictures, in every precision that they come in."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from building import build_ahead
from PIL import Image

from kontext_trt import BuildError, Bundle, Kontext, QuantizationError
from kontext_trt.benchmarks.quality.metrics import sqnr_db
from kontext_trt.engine.components import COMPONENTS, Operators, Precision
from kontext_trt.export.emulate.torch_device import TorchDevice
from kontext_trt.export.emulate.torch_executor import TorchExecutor
from kontext_trt.export.graphs.recipes import make_recipe
from kontext_trt.export.quantize.quantize_bundle import quantize_bundle
from kontext_trt.runtime.operators.catalogue import DOMAIN
from kontext_trt.runtime.operators.functions import foreign_functions

Quantized = Callable[..., Bundle]
MakePicture = Callable[..., Image.Image]
LINEARS = 2 * 12 + 2 * 5
"""In two blocks of each kind."""
T5_LINEARS = 14
"""In two blocks."""


def edited(bundle: Bundle | Path, picture: MakePicture) -> np.ndarray:
    with Kontext.open(bundle) as kontext:
        return kontext.edit(picture(128, 128), "make it blue", steps=3, seed=1, size=(144, 112)).outputs[0].latents


def operators(bundle: Bundle) -> Counter[str]:
    graph = onnx.load(bundle.file(bundle.graph("denoiser").path), load_external_data=False).graph
    return Counter(node.op_type for node in graph.node if node.domain == DOMAIN)


def test_the_picture_is_that_of_single_operators(fused_path: Path, bundle_path: Path, picture: MakePicture):
    assert sqnr_db(edited(bundle_path, picture), edited(fused_path, picture)) > 90


def test_the_graph_is_valid_and_its_functions_are_ours(fused_path: Path, tmp_path: Path):
    shutil.copytree(fused_path, tmp_path / "copy")  # the checker refuses weights that have a second link
    bundle = Bundle.open(tmp_path / "copy")
    file = bundle.file(bundle.graph("denoiser").path)
    onnx.checker.check_model(str(file), full_check=True)
    assert foreign_functions(file.read_bytes(), Precision.FP32) == []
    assert bundle.graph("denoiser").operators == "fused"
    assert bundle.graph("t5").operators == "single"
    assert operators(bundle) == {
        "Modulate": 4,  # of the first double block, the first single block, and the pruned rows of the last
        "GateModulate": 8,
        "Gate": 2,
        "JointHeads": 2,
        "Attend": 2,
        "JointLinear": 2,
        "LinearGelu": 4,
        "Linear": 6,
        "Heads": 2,
        "AttendBesideGelu": 2,
    }


@pytest.mark.parametrize("recipe", ["fp8", "fp8-attention"])
def test_quantized_it_computes_what_is_emulated(fused_quantized: Quantized, picture: MakePicture, recipe: str):
    """The rest is rounding: a value between two falls the other way."""
    bundle = fused_quantized(recipe)
    record = bundle.graph("denoiser").quantization
    assert record is not None
    assert record.products == {"fp8": LINEARS}
    executor = TorchExecutor(bundle, TorchDevice.CPU)
    kontext = Kontext(bundle, executor)
    emulated = kontext.edit(picture(128, 128), "make it blue", steps=3, seed=1, size=(144, 112)).outputs[0].latents
    assert sqnr_db(emulated, edited(bundle, picture)) > 30


def test_quantized_it_is_as_near_to_the_plain_one_as_single_operators_are(
    fused_quantized: Quantized, tiny_quantized: Quantized, bundle_path: Path, picture: MakePicture
):
    plain = edited(bundle_path, picture)
    fused = sqnr_db(plain, edited(fused_quantized("fp8"), picture))
    single = sqnr_db(plain, edited(tiny_quantized("fp8"), picture))
    assert fused > single - 2, "one scale per weight, where single operators have one per output"


def test_t5_reads_fp8_weights_by_an_operator(fused_quantized: Quantized, fused_path: Path, picture: MakePicture):
    bundle = fused_quantized("bf16", t5=True)
    record = bundle.graph("t5")
    assert record.quantization is not None
    assert record.quantization.products == {"fp8_weights": T5_LINEARS}
    assert record.operators == "fused"
    file = bundle.file(record.path)
    assert Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node if node.domain) == {
        "WeightOnlyLinear": T5_LINEARS
    }
    assert foreign_functions(file.read_bytes(), Precision.FP32) == []
    kontext = Kontext(bundle, TorchExecutor(bundle, TorchDevice.CPU))
    emulated = kontext.edit(picture(128, 128), "make it blue", steps=3, seed=1, size=(144, 112)).outputs[0].latents
    found = edited(bundle, picture)
    assert sqnr_db(emulated, found) > 90
    assert 10 < sqnr_db(edited(fused_path, picture), found) < 60, "FP8 weights, and no more than that"


def test_what_is_read_in_fp8_is_written_in_fp8(fused_quantized: Quantized):
    found = operators(fused_quantized("fp8-attention"))
    assert found["Quantize_to_fp8"] == 0
    assert found["JointHeads_fp8_to_fp8"] == found["Heads_fp8_to_fp8"] == 2
    assert found["Attend_fp8_attention_to_fp8"] == 2
    assert found["AttendBesideGelu_fp8_fp8_attention_to_fp8"] == 2
    assert found["LinearGelu_fp8_to_fp8"] == 4
    assert found["GateModulate"] == 1, "the final layer reads it as it is"


def test_an_operator_is_kept_whole(fused_quantized: Quantized, picture: MakePicture):
    """Its layers read one value, and others read that in FP8: it is rounded by an operator of its own."""
    kept = fused_quantized("fp8-attention", "single_transformer_blocks.0.attn.to_k", "transformer_blocks.1.attn.to_out")
    found = operators(kept)
    assert found["Heads"] == 0
    assert found["Heads_to_fp8"] == 1
    assert found["JointLinear"] == 1
    assert found["Attend"] == 1, "kernels give FP8 of FP8 attention alone"
    assert found["Quantize_to_fp8"] == 1
    assert edited(kept, picture).shape == edited(fused_quantized("fp8"), picture).shape


def test_formats_that_the_operators_lack_are_refused(fused_path: Path, calibration, tmp_path: Path):
    with pytest.raises(QuantizationError, match="fused operators compute in FP8, and the recipe nvfp4 has another"):
        quantize_bundle(fused_path, tmp_path / "no", make_recipe("nvfp4"), calibration)


@pytest.mark.check  # all six networks traced for this alone
def test_a_compiler_takes_the_bodies(wide_checkpoint: Path, tmp_path: Path):
    from kontext_trt.export.checkpoint import open_checkpoint
    from kontext_trt.export.export import ExportOptions, export_bundle

    options = ExportOptions(precision=Precision.BF16, operators=Operators.FUSED)
    bundle = export_bundle(open_checkpoint(wide_checkpoint), tmp_path / "fused", options)
    built = {component: build_ahead(bundle, component).manifest.census for component in COMPONENTS}
    assert built["denoiser"].attention["bf16"] == 4


@pytest.mark.check
@pytest.mark.parametrize("form", [Operators.SINGLE, Operators.FUSED])
def test_a_compiler_takes_fp32(form: Operators, bundle_path: Path, fused_path: Path, tmp_path: Path):
    path = fused_path if form is Operators.FUSED else bundle_path
    copy = shutil.copytree(path, tmp_path / "bundle", ignore=shutil.ignore_patterns("plans"))
    for component in COMPONENTS:
        assert set(build_ahead(Bundle.open(copy), component).manifest.census.gemms) == {"fp32"}, component


def test_no_plans_are_built_of_fp8(fused_quantized: Quantized):
    with pytest.raises(BuildError, match=r"fused operators in FP8, .* quantize a bundle of --operators single"):
        build_ahead(fused_quantized("fp8"))

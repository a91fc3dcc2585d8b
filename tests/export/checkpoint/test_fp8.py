"""FP8 weights with their scales, as comfy-kitchen writes and dequantizes them."""

from __future__ import annotations

import json
from pathlib import Path

import comfy_kitchen
import pytest
import torch
from comfy_kitchen.tensor import TensorCoreFP8Layout
from safetensors.torch import save_file
from torch import Tensor

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.contents import open_contents
from kontext_trt.export.checkpoint.formats import read_formats
from kontext_trt.export.checkpoint.views import View

Tensors = dict[str, Tensor]


def read(folder: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> View:
    """The weight of layer `a`."""
    save_file(tensors, folder / "one.safetensors", metadata)
    found = read_formats(open_contents(folder / "one.safetensors"))["a.weight"]
    assert isinstance(found, View)
    return found


def text(**fields: object) -> Tensor:
    """A `comfy_quant` tensor."""
    return torch.tensor(list(json.dumps(fields).encode()), dtype=torch.uint8)


def weight(dtype: torch.dtype = torch.float8_e4m3fn, **sides: Tensor) -> Tensors:
    torch.manual_seed(0)
    quantized = TensorCoreFP8Layout.quantize(torch.randn(48, 32), dtype=dtype)[0]
    return {"a.weight": quantized, **{f"a.{name}": tensor for name, tensor in sides.items()}}


class TestScales:
    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
    @pytest.mark.parametrize("side", ["weight_scale", "scale_weight"])
    def test_one_per_tensor_is_comfy_kitchens_to_the_bit(self, tmp_path: Path, dtype: torch.dtype, side: str):
        torch.manual_seed(0)
        codes, params = TensorCoreFP8Layout.quantize(torch.randn(48, 32), dtype=dtype)
        wanted = comfy_kitchen.dequantize_per_tensor_fp8(codes, params.scale, torch.float32)
        assert torch.equal(read(tmp_path, {"a.weight": codes, f"a.{side}": params.scale}).read(), wanted)

    @pytest.mark.parametrize("shape", [(48,), (48, 1)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_one_per_row(self, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype):
        scales = torch.rand(shape).to(dtype) + 0.5
        tensors = weight(weight_scale=scales)
        found = read(tmp_path, tensors)
        wanted = tensors["a.weight"].float() * scales.float().reshape(48, 1)
        assert torch.equal(found.read(), wanted)
        assert torch.equal(found.rows(7, 30).read(), wanted[7:30]), "a row keeps its own"
        assert torch.equal(found.rows(7, 30).rows(2, 9).read(), wanted[9:16])

    def test_rows_are_scaled_across_chunks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("kontext_trt.export.checkpoint.views.CHUNK_ITEMS", 50)
        scales = torch.rand(48) + 0.5
        tensors = weight(weight_scale=scales)
        assert torch.equal(read(tmp_path, tensors).read(), tensors["a.weight"].float() * scales[:, None])

    def test_a_weight_that_is_not_fp8_may_have_one(self, tmp_path: Path):
        values = torch.rand(4, 4)
        found = read(tmp_path, {"a.weight": values, "a.weight_scale": torch.tensor(2.0)})
        assert torch.equal(found.read(), values * 2)


class TestInputScales:
    def test_it_is_kept(self, tmp_path: Path):
        sides = {"weight_scale": torch.tensor(0.5), "input_scale": torch.tensor(0.25)}
        assert read(tmp_path, weight(**sides)).input_scale == 0.25

    @pytest.mark.parametrize(("value", "kept"), [(1.0, None), (0.25, 0.25)])
    def test_one_means_none_in_older_files(self, tmp_path: Path, value: float, kept: float | None):
        sides = {"scale_weight": torch.tensor(0.5), "scale_input": torch.tensor(value)}
        tensors = weight(**sides) | {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
        assert read(tmp_path, tensors).input_scale == kept

    def test_one_is_one_in_newer_files(self, tmp_path: Path):
        sides = {"weight_scale": torch.tensor(0.5), "input_scale": torch.tensor(1.0)}
        assert read(tmp_path, weight(**sides)).input_scale == 1.0

    @pytest.mark.parametrize("way", ["tensor", "header", "marker"])
    def test_products_in_full_precision_have_none(self, tmp_path: Path, way: str):
        old = way == "marker"
        sides = {
            "scale_weight" if old else "weight_scale": torch.tensor(0.5),
            "scale_input" if old else "input_scale": torch.tensor(0.25),
        }
        tensors, metadata = weight(**sides), None
        said = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
        if way == "tensor":
            tensors["a.comfy_quant"] = text(**said)
        elif way == "header":
            metadata = {"_quantization_metadata": json.dumps({"layers": {"model.diffusion_model.a": said}})}
        else:
            tensors["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
        found = read(tmp_path, tensors, metadata)
        assert found.input_scale is None
        assert found.scale_value == 0.5


class TestRefusals:
    @pytest.mark.parametrize(
        ("sides", "message"),
        [
            ({"weight_scale": torch.ones(3, 2)}, r"a has a scale F32 \[3, 2\] for a weight \[48, 32\]; one"),
            ({"weight_scale": torch.ones(48, dtype=torch.int32)}, r"a has a scale I32 \[48\] for a weight"),
            ({"weight_scale": torch.tensor(float("nan"))}, "the weight's scale of a is nan, not a positive number"),
            ({"weight_scale": torch.tensor(-1.0)}, "the weight's scale of a is -1.0, not a positive number"),
            ({"weight_scale": torch.tensor([1.0] * 47 + [0.0])}, "the weight's scales of a are not all positive"),
            ({"weight_scale": torch.tensor(1.0), "scale_weight": torch.tensor(1.0)}, "a has weight_scale and"),
            ({"input_scale": torch.ones(2)}, r"input_scale of a is F32 \[2\], not one floating-point number"),
            ({"input_scale": torch.tensor(0.0)}, "input_scale of a is 0.0, not a positive number"),
            ({"pre_quant_scale": torch.ones(32)}, "a has pre_quant_scale, which no FP8 weight has"),
            ({"comfy_quant": text(format="float8_e5m2")}, "a is declared as float8_e5m2 and stored as F8_E4M3"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_said(self, tmp_path: Path, sides: Tensors, message: str):
        with pytest.raises(CheckpointError, match=message):
            read(tmp_path, weight(**sides))

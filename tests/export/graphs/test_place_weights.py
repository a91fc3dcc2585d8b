"""Weights that are shared with a checkpoint, and those that are converted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kontext_trt.engine.components import Precision
from kontext_trt.engine.progress import Silent
from kontext_trt.export.checkpoint.contents import open_contents
from kontext_trt.export.checkpoint.decoded import DecodedView
from kontext_trt.export.checkpoint.formats import read_formats
from kontext_trt.export.graphs.place_weights import WeightPlacer, row_scales

CODES = torch.eye(4, 6).to(torch.float8_e4m3fn)
SCALES = torch.tensor([0.5, 1.0, 1.5, 2.1])


@pytest.fixture
def layer(tmp_path: Path):
    """An FP8 layer with one scale per row, and a bias."""
    tensors = {"a.weight": CODES, "a.weight_scale": SCALES[:, None].clone(), "a.bias": torch.zeros(4)}
    save_file(tensors, tmp_path / "one.safetensors")
    return read_formats(open_contents(tmp_path / "one.safetensors"))


@pytest.fixture
def placer(tmp_path: Path) -> WeightPlacer:
    (tmp_path / "weights").mkdir()
    return WeightPlacer(tmp_path / "weights", Silent(), copy=False)


def test_what_graphs_read_is_shared(layer, placer: WeightPlacer, tmp_path: Path):
    placed = placer.place("part", layer, Precision.FP32, as_stored={"a.weight"})
    placed |= placer.place("scales", row_scales(layer, ["a"]), Precision.FP32)
    assert {place.file.name for place in placed.values()} == {"part.one.safetensors"}
    assert set(placer.origins.values()) <= {"hardlink", "reflink"}
    place = placed["a.weight_scale"]
    assert place.file.read_bytes()[place.offset :][: place.size_bytes] == SCALES.numpy().tobytes()


def test_scales_of_another_type_are_converted(layer, placer: WeightPlacer, tmp_path: Path):
    placed = placer.place("scales", row_scales(layer, ["a"]), Precision.BF16)
    assert placed["a.weight_scale"].file == tmp_path / "weights/scales.bf16.safetensors"
    with safe_open(placed["a.weight_scale"].file, "pt") as file:
        assert torch.equal(file.get_tensor("a.weight_scale"), SCALES.bfloat16())


def test_what_graphs_do_not_read_as_fp8_is_multiplied_out(layer, placer: WeightPlacer):
    placed = placer.place("part", layer, Precision.FP32)
    with safe_open(placed["a.weight"].file, "pt") as file:
        assert torch.equal(file.get_tensor("a.weight"), CODES.float() * SCALES[:, None])


def test_what_is_decoded_is_written(placer: WeightPlacer, tmp_path: Path):
    values = torch.rand(6, 2)
    view = DecodedView(
        path=tmp_path, dtype="F32", shape=(6, 2), decode=lambda start, stop: values[start:stop], num_rows=6
    )
    placed = placer.place("part", {"a.weight": view}, Precision.FP32, as_stored={"a.weight"})
    with safe_open(placed["a.weight"].file, "pt") as file:
        assert torch.equal(file.get_tensor("a.weight"), values)

"""Weights that are written in another precision."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors import safe_open

from kontext_trt import Bundle
from kontext_trt.engine.bundle.graph_file import WeightPlace
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import ExportError
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.checkpoint.views import View
from kontext_trt.export.graphs.weights import attach_weights, write_converted


class TestPrecisions:
    @pytest.mark.parametrize("precision", list(Precision))
    def test_converted_file_is_safetensors_and_rounds_as_torch(
        self, precision: Precision, bundle: Bundle, tmp_path: Path
    ):
        views = open_checkpoint(Path(bundle.manifest.source)).clip.weights.views
        write_converted(views, precision, tmp_path / "out.safetensors")
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision.value]
        with safe_open(tmp_path / "out.safetensors", "pt") as file:
            assert set(file.keys()) == set(views)
            for name in file.keys():  # noqa: SIM118 (not a dict)
                assert torch.equal(file.get_tensor(name), views[name].read().to(dtype))

    def test_overflow_in_fp16_names_the_tensor(self, tmp_path: Path):
        np.array([1.0, 70_000.0], np.float32).tofile(tmp_path / "data")
        views = {"big.weight": View(path=tmp_path / "data", dtype="F32", shape=(2,), offset=0)}
        with pytest.raises(ExportError, match=r"tensor big\.weight has values beyond float16's 65504"):
            write_converted(views, Precision.FP16, tmp_path / "out.safetensors")
        assert [file.name for file in tmp_path.iterdir()] == ["data"]


def test_a_place_of_another_size_than_the_graph_reads_is_refused(tmp_path: Path):
    """FP8 bytes under a tensor that the graph declares in bf16 would be read beyond their end."""
    value = ir.Value(name="proj.weight", type=ir.TensorType(ir.DataType.BFLOAT16), shape=ir.Shape([4, 8]))
    graph = ir.Graph([], [], nodes=[], initializers=[value], opset_imports={"": 23})
    model = ir.Model(graph, ir_version=10)
    (tmp_path / "weights").mkdir()
    place = WeightPlace(file=tmp_path / "weights" / "part.safetensors", offset=128, size_bytes=32)
    with pytest.raises(ExportError, match=r"proj.weight has 32 bytes in part.safetensors, and a graph would read 64"):
        attach_weights(model, {"proj.weight": place}, tmp_path)
    whole = replace(place, size_bytes=64)
    assert attach_weights(model, {"proj.weight": whole}, tmp_path) == {"proj.weight": whole}
    external = value.const_value
    assert isinstance(external, ir.ExternalTensor)
    assert (str(external.location), external.offset, external.length) == ("weights/part.safetensors", 128, 64)

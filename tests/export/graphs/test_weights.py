"""Weights that are written in another precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from kontext_trt import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import ExportError
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.checkpoint.views import View
from kontext_trt.export.graphs.weights import write_converted


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

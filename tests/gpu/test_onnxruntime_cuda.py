"""ONNX Runtime on a CUDA device gives the CPU's picture."""

from pathlib import Path

import numpy as np
import pytest

from kontext_trt import Device, Kontext, OnnxRuntimeOptions
from kontext_trt.engine.components import Precision
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.export import ExportOptions, export_bundle

pytestmark = pytest.mark.gpu

BOUNDS_DB = {Precision.FP32: 50, Precision.FP16: 45, Precision.BF16: 40}


@pytest.mark.parametrize("precision", list(Precision))
def test_picture_is_the_cpus(kontext: Kontext, checkpoint_path: Path, picture, tmp_path: Path, precision: Precision):
    bundle = export_bundle(open_checkpoint(checkpoint_path), tmp_path / "bundle", ExportOptions(precision=precision))
    with Kontext.open(bundle, executor=OnnxRuntimeOptions(device=Device.CUDA)) as other:
        assert other.executor.name == "onnxruntime (cuda)"
        for reference in (picture(128, 128), None):
            request = {"steps": 4, "seed": [0, 1], "size": (112, 144)}
            one, two = (
                session.generate("a cat", **request) if reference is None else session.edit(reference, "x", **request)
                for session in (kontext, other)
            )
            for ours, theirs in zip(one.outputs, two.outputs, strict=True):
                error = np.asarray(ours.image, float) - np.asarray(theirs.image, float)
                assert 20 * np.log10(255 / np.sqrt(np.mean(error**2))) > BOUNDS_DB[precision]

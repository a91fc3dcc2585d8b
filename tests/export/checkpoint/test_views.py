"""A tensor's bytes as numbers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kontext_trt import CheckpointError
from kontext_trt.engine.bundle.tensor_file import TensorFile
from kontext_trt.export.checkpoint.views import FLOATS, View


def view(folder: Path, values: torch.Tensor) -> View:
    file = folder / "one.safetensors"
    save_file({"weight": values}, file)
    entry = TensorFile.open(file).tensors["weight"]
    return View(path=file, dtype=entry.dtype, shape=entry.shape, offset=entry.offset)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_floating_point_is_read(tmp_path: Path, dtype: torch.dtype):
    opened = view(tmp_path, torch.tensor([[0.5, -2.0]]).to(dtype))
    assert opened.dtype in FLOATS
    assert opened.read().tolist() == [[0.5, -2.0]]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_whole_numbers_are_refused_by_name(tmp_path: Path, dtype: torch.dtype):
    opened = view(tmp_path, torch.tensor([[1, 2]]).to(dtype))
    with pytest.raises(CheckpointError, match=f"one.safetensors holds weights of type {opened.dtype}, which are not"):
        opened.read()

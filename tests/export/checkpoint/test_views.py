"""A checkpoint's tensors, compared with what the networks need."""

from pathlib import Path

import numpy as np
import pytest
import torch
from checking import TRANSFORMER, check, rewrite
from safetensors.torch import save_file
from single_files import bfl_transformer

from kontext_trt.engine.bundle.tensor_file import TensorFile
from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.views import FLOATS, View


def view(folder: Path, values: torch.Tensor) -> View:
    file = folder / "one.safetensors"
    save_file({"weight": values}, file)
    entry = TensorFile.open(file).tensors["weight"]
    return View(path=file, dtype=entry.dtype, shape=entry.shape, offset=entry.offset)


class TestRefusals:
    def test_missing_tensor(self, checkpoint_copy: Path):
        rewrite(checkpoint_copy / TRANSFORMER, lambda tensors: tensors.pop("transformer_blocks.1.attn.to_q.bias"))
        with pytest.raises(
            CheckpointError, match=r"lacks transformer_blocks\.1\.attn\.to_q\.bias \(1 of \d+ tensors\)"
        ):
            check(checkpoint_copy)

    def test_extra_tensor(self, checkpoint_copy: Path):
        rewrite(checkpoint_copy / TRANSFORMER, lambda tensors: tensors.update({"surprise.weight": torch.zeros(2)}))
        with pytest.raises(CheckpointError, match=r"do not belong there: surprise\.weight"):
            check(checkpoint_copy)

    def test_misshapen_tensor(self, checkpoint_copy: Path):
        rewrite(checkpoint_copy / TRANSFORMER, lambda tensors: tensors.update({"proj_out.bias": torch.zeros(3)}))
        with pytest.raises(CheckpointError, match=r"tensor proj_out\.bias is \[3\], this network has \[64\]"):
            check(checkpoint_copy)

    def test_fused_tensor_with_too_few_rows(self, checkpoint_copy: Path):
        def change(tensors):
            fused = bfl_transformer(dict(tensors))
            fused["double_blocks.0.img_attn.qkv.weight"] = fused["double_blocks.0.img_attn.qkv.weight"][:100].clone()
            tensors.clear()
            tensors.update(fused)

        rewrite(checkpoint_copy / TRANSFORMER, change)
        with pytest.raises(CheckpointError, match=r"double_blocks\.0\.img_attn\.qkv\.weight has 100 rows, at least"):
            check(checkpoint_copy)


class TestPrecisions:
    def test_chunks_cover_a_tensor_of_any_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("kontext_trt.export.checkpoint.views.CHUNK_ITEMS", 7)
        values = np.arange(23, dtype=np.float32)
        values.tofile(tmp_path / "data")
        view = View(path=tmp_path / "data", dtype="F32", shape=(23,), offset=0)
        assert [len(chunk) for chunk in view.chunks()] == [7, 7, 7, 2]
        assert view.read().tolist() == values.tolist()


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

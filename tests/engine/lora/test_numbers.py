"""Number types are read as torch reads them, every code of FP8 included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lora_files import write_file

from kontext_trt.engine.bundle.tensor_file import TensorFile
from kontext_trt.engine.lora.numbers import read_values


@pytest.mark.parametrize(
    ("name", "dtype"), [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2), ("BF16", torch.bfloat16)]
)
def test_every_finite_code_is_read_as_by_torch(name: str, dtype: torch.dtype, tmp_path: Path):
    codes = np.arange(1 << (16 if name == "BF16" else 8), dtype=np.uint16 if name == "BF16" else np.uint8)
    wanted = torch.from_numpy(codes.copy()).view(dtype).float()
    finite = torch.isfinite(wanted).numpy()
    path = write_file(tmp_path / "codes.safetensors", {"a": (name, codes[finite])})
    with path.open("rb") as file:
        read = read_values(file, TensorFile.open(path).tensors["a"], "a", "codes")
    assert np.array_equal(read, wanted.numpy()[finite])
    assert len(read) > 240

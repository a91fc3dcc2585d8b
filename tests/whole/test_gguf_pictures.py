"""A GGUF file's picture is that of its weights dequantized by the gguf package."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf_files import K_QUANTS, write_gguf
from safetensors.torch import load_file, save_file
from single_files import bfl_transformer
from torch import Tensor

from kontext_trt import Bundle, Kontext
from kontext_trt.engine.components import Precision
from kontext_trt.export.checkpoint import CheckpointFiles
from kontext_trt.export.export import ExportOptions, export_bundle
from kontext_trt.runtime.executors.onnxruntime_cpu import OnnxRuntimeCpu

KINDS = ("Q8_0", *K_QUANTS, "F16", "BF16")


def latents(bundle: Bundle, picture) -> np.ndarray:
    with Kontext(bundle, OnnxRuntimeCpu(bundle)) as kontext:
        return kontext.edit(picture(96, 80), "x", steps=2, seed=0).outputs[0].latents


@pytest.mark.check  # two exports and two pictures take a minute
def test_all_types_in_one_file(checkpoint_path: Path, tmp_path: Path, picture) -> None:
    """Rows of the tiny network are no whole blocks: they are folded, as city96's writer does it."""
    tensors = bfl_transformer(load_file(checkpoint_path / "transformer/diffusion_pytorch_model.safetensors"))
    number = count()
    folded: dict[str, Tensor] = {}
    kinds: dict[str, str] = {}
    for name, tensor in tensors.items():
        quantized = tensor.ndim == 2 and "blocks." in name and tensor.numel() % 256 == 0
        kinds[name] = KINDS[next(number) % len(KINDS)] if quantized else "F32"
        folded[name] = tensor.reshape(-1, 256) if quantized else tensor
    assert set(kinds.values()) == {*KINDS, "F32"}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if folded[name].shape != tensor.shape}
    values = write_gguf(tmp_path / "kontext.gguf", folded, lambda name, _: kinds[name], shapes=shapes)
    values = {name: value.reshape(tensors[name].shape).contiguous() for name, value in values.items()}
    save_file(values, tmp_path / "values.safetensors")
    bundles = [
        export_bundle(
            checkpoint_path,
            tmp_path / end,
            ExportOptions(precision=Precision.FP32),
            files=CheckpointFiles(transformer=tmp_path / f"{stem}.{end}"),
        )
        for stem, end in (("kontext", "gguf"), ("values", "safetensors"))
    ]
    found, wanted = (latents(bundle, picture) for bundle in bundles)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert torch.isfinite(torch.from_numpy(wanted)).all()

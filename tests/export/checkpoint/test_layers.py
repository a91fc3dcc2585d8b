"""What files declare of their layers' formats."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.contents import open_contents
from kontext_trt.export.checkpoint.layers import gather_layers

WEIGHT = {"a.b.weight": torch.zeros(4, 4)}


def gather(folder: Path, tensors: dict[str, Tensor], declared: str | None = None):
    metadata = None if declared is None else {"_quantization_metadata": declared}
    save_file(tensors, folder / "one.safetensors", metadata)
    return gather_layers(open_contents(folder / "one.safetensors"))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("said", ['"nvfp4"', '{"format": "nvfp4"}'])
def test_the_header_declares_with_or_without_a_prefix(tmp_path: Path, prefix: str, said: str):
    layers, plain = gather(tmp_path, WEIGHT, f'{{"layers": {{"{prefix}a.b": {said}, "gone": {said}}}}}')
    assert plain == {}
    assert layers.keys() == {"a.b"}
    assert layers["a.b"].format == "nvfp4"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{", "the header's _quantization_metadata is malformed"),
        ('{"layers": [1]}', "is malformed .layers is not an object"),
        ('{"layers": {"a.b": {"format": 7}}}', "what is declared of the format of a.b is malformed"),
        ('{"layers": {"a.b": [1]}}', "what is declared of the format of a.b is malformed"),
    ],
)
def test_a_malformed_header_is_said(tmp_path: Path, declared: str, message: str):
    with pytest.raises(CheckpointError, match=message):
        gather(tmp_path, WEIGHT, declared)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor(list(b"nonsense"), dtype=torch.uint8), "a.b.comfy_quant is malformed"),
        (torch.zeros(4), r"a.b.comfy_quant is malformed .it should be at most 65536 bytes of JSON, not F32 \[4\]"),
        (torch.zeros(70_000, dtype=torch.uint8), r"should be at most 65536 bytes of JSON, not U8 \[70000\]"),
    ],
)
def test_a_malformed_declaration_is_said(tmp_path: Path, tensor: Tensor, message: str):
    with pytest.raises(CheckpointError, match=message):
        gather(tmp_path, WEIGHT | {"a.b.comfy_quant": tensor})


def test_a_layer_without_a_weight_is_said(tmp_path: Path):
    layers, _ = gather(tmp_path, WEIGHT | {"a.c.weight_scale": torch.tensor(1.0)})
    with pytest.raises(CheckpointError, match=r"has weight_scale of a layer a.c, and no weight of it"):
        assert layers["a.c"].weight

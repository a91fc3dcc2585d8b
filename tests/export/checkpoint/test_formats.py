"""Formats of weights that are refused, each by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comfy_kitchen.tensor import TensorCoreMXFP8Layout, TensorWiseINT8Layout
from safetensors.torch import save_file
from torch import Tensor

from kontext_trt.engine.bundle.file_kinds import OTHER_KINDS
from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint.contents import CONTAINERS, open_contents
from kontext_trt.export.checkpoint.formats import FORMATS, read_formats


def by_kitchen(layout: type, **arguments: object) -> dict[str, Tensor]:
    """A layer as comfy-kitchen quantizes and names it."""
    codes, params = layout.quantize(torch.rand(64, 256), **arguments)
    return {f"a.weight{end}": tensor for end, tensor in layout.state_dict_tensors(codes, params).items()}


def declared(**fields: object) -> dict[str, Tensor]:
    text = json.dumps(fields).encode()
    return {
        "a.weight": torch.zeros(4, 4).to(torch.float8_e4m3fn),
        "a.comfy_quant": torch.tensor(list(text), dtype=torch.uint8),
    }


def bytes_(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


def svdquant(stem: str) -> dict[str, Tensor]:
    """A layer as nunchaku names it."""
    names = {"smooth": 64, "smooth_orig": 64, "lora_down": 64, "lora_up": 64, "bias": 64}
    sides = {f"{stem}.{name}": torch.zeros(size) for name, size in names.items()}
    return {f"{stem}.qweight": torch.zeros(64, 32, dtype=torch.int8), f"{stem}.wscales": torch.zeros(1, 64), **sides}


CASES = {
    "SVDQuant": (lambda: svdquant("a.qkv_proj"), r"is quantized by SVDQuant \(nunchaku\).*was made from.* nvfp4-svd"),
    "bitsandbytes NF4": (
        lambda: {
            "a.weight": bytes_(128, 1),
            "a.weight.absmax": bytes_(4),
            "a.weight.quant_map": torch.zeros(16),
            "a.weight.quant_state.bitsandbytes__nf4": bytes_(90),
        },
        r"is quantized by bitsandbytes \(NF4 or FP4\)",
    ),
    "bitsandbytes int8": (
        lambda: {"a.weight": torch.zeros(4, 4, dtype=torch.int8), "a.SCB": torch.zeros(4)},
        r"is quantized by bitsandbytes \(LLM.int8\)",
    ),
    "int8_tensorwise": (lambda: by_kitchen(TensorWiseINT8Layout), "has int8 weights .such as ComfyUI"),
    "int8 without a scale": (lambda: {"a.weight": torch.zeros(4, 4, dtype=torch.int8)}, "has int8 weights"),
    "MXFP8": (lambda: by_kitchen(TensorCoreMXFP8Layout), "is quantized to MXFP8"),
    "declared MXFP8": (lambda: declared(format="mxfp8"), "is quantized to MXFP8"),
    "convrot": (lambda: declared(format="int8_tensorwise", convrot=True), "has weights that are rotated"),
    "codebook": (lambda: declared(format="asym_w4a8_int8"), "has 4 bit weights with a codebook"),
    "unknown": (lambda: declared(format="fp2"), "a is of a format that is not known: declared as fp2"),
    "whole numbers": (lambda: {"a.weight": torch.zeros(4, dtype=torch.int32)}, r"not known: .*weight I32 \[4\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_by_name_with_what_to_do(tmp_path: Path, name: str):
    make, message = CASES[name]
    save_file({**make(), "b.weight": torch.zeros(2)}, tmp_path / "one.safetensors")
    with pytest.raises(CheckpointError, match=rf"one.safetensors.*{message}"):
        read_formats(open_contents(tmp_path / "one.safetensors"))


def test_the_reference_names_every_format_and_container():
    page = (Path(__file__).parents[3] / "docs/reference/checkpoints.md").read_text()
    named = [one.name for table in (FORMATS, CONTAINERS, OTHER_KINDS) for one in table]
    assert [name for name in named if name not in page] == []

"""A network's files in a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checking import check
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint
from kontext_trt.export.checkpoint.folders import open_part, variants

STEM = "diffusion_pytorch_model"


def sharded(folder: Path, variant: str, index: str, shard: str) -> None:
    """Replace a transformer by two shards; `shard` is their names' pattern."""
    file = folder / f"{STEM}.safetensors"
    tensors = load_file(file)
    file.unlink()
    names, weight_map = sorted(tensors), {}
    for number, some in enumerate((names[:30], names[30:]), 1):
        name = shard.format(number)
        save_file({one: tensors[one].half() for one in some}, folder / name)
        weight_map |= dict.fromkeys(some, name)
    (folder / index).write_text(json.dumps({"weight_map": weight_map}))
    assert variants(folder) == {variant: folder / index}


@pytest.mark.parametrize(
    ("index", "shard"),
    [
        (f"{STEM}.fp16.safetensors.index.json", STEM + ".fp16-0000{}-of-00002.safetensors"),
        (f"{STEM}.safetensors.index.fp16.json", STEM + "-0000{}-of-00002.fp16.safetensors"),
    ],
)
def test_shards_of_a_variant(checkpoint_copy: Path, index: str, shard: str, caplog: pytest.LogCaptureFixture):
    sharded(checkpoint_copy / "transformer", "fp16", index, shard)
    opened = open_checkpoint(checkpoint_copy, CheckpointFiles(variant="fp16"))
    assert {view.dtype for view in opened.transformer.weights.views.values()} == {"F16"}
    assert "text_encoder has no variant fp16: model.safetensors is taken" in caplog.text
    caplog.clear()
    check(checkpoint_copy)
    assert "transformer has nothing but the variant fp16, which is taken" in caplog.text


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_as_the_libraries_write_them(checkpoint_copy: Path, variant: str | None):
    transformer = FluxTransformer2DModel.from_pretrained(checkpoint_copy / "transformer")
    t5 = T5EncoderModel.from_pretrained(checkpoint_copy / "text_encoder_2")
    for folder, model in (("transformer", transformer), ("text_encoder_2", t5)):
        (weights,) = (checkpoint_copy / folder).glob("*.safetensors")
        weights.unlink()
        model.half().save_pretrained(checkpoint_copy / folder, variant=variant, max_shard_size="60KB")
        assert variants(checkpoint_copy / folder).keys() == {variant or ""}
        assert len(list((checkpoint_copy / folder).glob("*.safetensors"))) > 1
    check(checkpoint_copy, variant=variant)


def test_a_variant_beside_the_plain_file(checkpoint_copy: Path):
    folder = checkpoint_copy / "text_encoder"
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / "model.fp16.safetensors")
    for variant, dtype in ((None, "F32"), ("fp16", "F16")):
        opened = open_checkpoint(checkpoint_copy, CheckpointFiles(variant=variant))
        assert {view.dtype for view in opened.clip.weights.views.values()} == {dtype}
    with pytest.raises(CheckpointError, match=r"no part of .* has the variant bf16; there are: fp16"):
        check(checkpoint_copy, variant="bf16")
    shutil.move(folder / "model.safetensors", folder / "model.bf16.safetensors")
    with pytest.raises(CheckpointError, match="has the variants bf16, fp16; choose one with --variant"):
        check(checkpoint_copy)


def test_a_folder_of_pickles_is_told_as_one(checkpoint_copy: Path):
    folder = checkpoint_copy / "text_encoder"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"it holds none, but pytorch_model\.bin: pickles can run code"):
        check(checkpoint_copy)


def test_several_files_without_an_index(tmp_path: Path):
    for name in ("a", "b"):
        save_file({name: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="it holds 2 of them and no index"):
        open_part(tmp_path)
    with pytest.raises(CheckpointError, match="gone does not exist"):
        open_part(tmp_path / "gone")

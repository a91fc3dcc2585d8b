"""Networks under prefixes, and what is left out beside them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from checking import TRANSFORMER, check
from safetensors.torch import load_file, save_file
from single_files import bfl_transformer
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, T5Config, T5ForConditionalGeneration

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint


def written(file: Path, tensors: dict[str, Tensor]) -> Path:
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file)
    return file


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "prefix", ["model.diffusion_model.", "diffusion_model.", "model.", "_orig_mod.", "module.", "model._orig_mod."]
)
@pytest.mark.parametrize("bfl", [True, False])
def test_a_prefix_of_all_names(checkpoint_path: Path, tmp_path: Path, prefix: str, bfl: bool):
    tensors = load_file(checkpoint_path / TRANSFORMER)
    tensors = under(prefix, bfl_transformer(tensors) if bfl else tensors)
    check(checkpoint_path, transformer=written(tmp_path / "x.safetensors", tensors))


def test_blocks_that_were_compiled_one_by_one(checkpoint_path: Path, tmp_path: Path):
    tensors = bfl_transformer(load_file(checkpoint_path / TRANSFORMER))
    tensors = {name.replace("blocks.1.", "blocks.1._orig_mod."): tensor for name, tensor in tensors.items()}
    file = written(tmp_path / "x.safetensors", tensors)
    check(checkpoint_path, transformer=file)
    tensors["single_blocks.1.linear2.bias"] = tensors["single_blocks.1._orig_mod.linear2.bias"].clone()
    written(file, tensors)
    with pytest.raises(CheckpointError, match=r"has the tensor single_blocks\.1\.linear2\.bias twice"):
        check(checkpoint_path, transformer=file)


def test_averaged_weights_are_left_out_with_a_word(
    checkpoint_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tensors = bfl_transformer(load_file(checkpoint_path / TRANSFORMER))
    both = under("model.diffusion_model.", tensors) | under("model_ema.diffusion_model.", tensors)
    both = {name: tensor.clone() for name, tensor in both.items()}
    check(checkpoint_path, transformer=written(tmp_path / "x.safetensors", both))
    assert f"{len(tensors)} tensors are left out, weights that were averaged in training: model_ema." in caplog.text


def test_a_single_tensor_is_left_out_in_the_singular(
    checkpoint_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    t5 = load_file(checkpoint_path / "text_encoder_2/model.safetensors") | {"spiece_model": torch.zeros(7)}
    with caplog.at_level(logging.INFO):
        check(checkpoint_path, t5=written(tmp_path / "t5.safetensors", t5))
    assert "1 tensor is left out, ComfyUI's copy of T5's tokenizer: spiece_model" in caplog.text
    assert "spiece_model…" not in caplog.text


def test_two_networks_for_one_part(checkpoint_path: Path, tmp_path: Path):
    tensors = bfl_transformer(load_file(checkpoint_path / TRANSFORMER))
    both = {name: tensor.clone() for name, tensor in (under("a.", tensors) | under("b.", tensors)).items()}
    with pytest.raises(CheckpointError, match=r"has several networks for one part, under 'a\.' and 'b\.'"):
        check(checkpoint_path, transformer=written(tmp_path / "x.safetensors", both))


def test_a_tensor_of_no_network_is_refused(checkpoint_path: Path, tmp_path: Path):
    tensors = under("model.", load_file(checkpoint_path / TRANSFORMER)) | {"surprise": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="has tensors that do not belong there: surprise"):
        check(checkpoint_path, transformer=written(tmp_path / "x.safetensors", tensors))


def test_whole_clip_and_t5(checkpoint_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """As transformers saves them, with their configurations."""
    text = CLIPTextConfig.from_pretrained(checkpoint_path / "text_encoder")
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision))
    t5 = T5ForConditionalGeneration(T5Config.from_pretrained(checkpoint_path / "text_encoder_2", num_decoder_layers=1))
    for name, model in (("clip", clip), ("t5", t5)):
        model.save_pretrained(tmp_path / name)
    with caplog.at_level(logging.INFO):
        check(checkpoint_path, clip=tmp_path / "clip", t5=tmp_path / "t5")
        check(checkpoint_path, clip=tmp_path / "clip/model.safetensors", t5=tmp_path / "t5/model.safetensors")
    for words in ("tensors are left out, CLIP's vision tower", "tensors are left out, T5's decoder", "constant"):
        assert words in caplog.text


def test_older_whole_checkpoints_have_more(checkpoint_path: Path, tmp_path: Path):
    """Copies of T5's one embedding, and CLIP's positions as a tensor."""
    clip = load_file(checkpoint_path / "text_encoder/model.safetensors")
    prefix = next(name for name in clip if name.endswith("token_embedding.weight")).removesuffix(
        "token_embedding.weight"
    )
    clip[f"{prefix}position_ids"] = torch.zeros(1, 77, dtype=torch.int64)
    t5 = load_file(checkpoint_path / "text_encoder_2/model.safetensors")
    t5 |= {f"{stem}.embed_tokens.weight": t5["shared.weight"].clone() for stem in ("encoder", "decoder")}
    files = (("clip", clip), ("t5", t5))
    check(checkpoint_path, **{name: written(tmp_path / f"{name}.safetensors", tensors) for name, tensors in files})


class TestT5Embedding:
    def test_it_may_have_the_encoders_name_alone(self, checkpoint_path: Path, tmp_path: Path):
        t5 = load_file(checkpoint_path / "text_encoder_2/model.safetensors")
        wanted = t5.pop("shared.weight")
        t5["encoder.embed_tokens.weight"] = wanted
        file = written(tmp_path / "t5.safetensors", t5)
        opened = open_checkpoint(checkpoint_path, CheckpointFiles(t5=file))
        assert torch.equal(opened.t5.weights.views["shared.weight"].read(), wanted)

    def test_two_that_differ_are_refused(self, checkpoint_path: Path, tmp_path: Path):
        t5 = load_file(checkpoint_path / "text_encoder_2/model.safetensors")
        t5["encoder.embed_tokens.weight"] = t5["shared.weight"][:-1].clone()
        with pytest.raises(CheckpointError, match=r"shared.weight is F32 .*; in T5 they are one"):
            check(checkpoint_path, t5=written(tmp_path / "t5.safetensors", t5))


def test_norms_in_another_spelling(checkpoint_path: Path, tmp_path: Path):
    tensors = bfl_transformer(load_file(checkpoint_path / TRANSFORMER))
    spelled = {name.replace("_norm.scale", "_norm.weight"): tensor for name, tensor in tensors.items()}
    assert spelled.keys() != tensors.keys()
    file = written(tmp_path / "x.safetensors", spelled)
    check(checkpoint_path, transformer=file)
    name = next(name for name in tensors if name.endswith("query_norm.scale"))
    written(file, spelled | {name: tensors[name].clone()})
    with pytest.raises(CheckpointError, match=rf"has the tensor {name} twice, in two spellings"):
        check(checkpoint_path, transformer=file)

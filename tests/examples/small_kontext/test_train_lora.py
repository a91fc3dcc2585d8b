"""Training a LoRA of the small Kontext."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxKontextPipeline
from safetensors.torch import load_file

from kontext_trt.examples.small_kontext.model import SMOKE, new_pipeline
from kontext_trt.examples.small_kontext.train_lora import DARK, LIGHT, RANK, LoraTraining, blueprint, train
from kontext_trt.export.tiny import save_checkpoint


@pytest.fixture
def pipeline(tokenizers) -> FluxKontextPipeline:
    return new_pipeline(SMOKE, *tokenizers, seed=0)


def test_a_blueprint_has_two_colours_and_what_lies_between():
    picture = torch.tensor([0, 128, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 2, 2, 3)
    dark, between, light = blueprint(picture)[:, 0, 0].float()
    assert tuple(dark.tolist()) == DARK
    assert tuple(light.tolist()) == LIGHT
    assert ((dark < between) & (between < light)).all()


def test_low_rank_sums_learn_and_the_model_stays(pipeline: FluxKontextPipeline):
    for parameter in pipeline.transformer.parameters():
        if not parameter.any():  # what training begins with lets nothing through
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: tensor.clone() for name, tensor in pipeline.transformer.state_dict().items()}
    training = LoraTraining(pipeline)
    assert all(not added.up.any() for added in training.sums.values()), "at first it changes nothing"
    for part in (0.1, 0.2):
        assert training.step(2, part) > 0
    assert all(added.up.any() for added in training.sums.values())
    after = pipeline.transformer.state_dict()
    for name, tensor in before.items():
        layer = name.removesuffix(".weight")
        stored = f"{layer}.parametrizations.weight.original" if layer in training.sums else name
        assert torch.equal(after[stored], tensor)


@pytest.mark.check
def test_diffusers_reads_the_file(pipeline: FluxKontextPipeline, tmp_path: Path):
    save_checkpoint(pipeline, tmp_path / "checkpoint", [(128, 128)])
    train(tmp_path / "checkpoint", tmp_path / "lora.safetensors", minutes=0.02, batch=2)
    tensors = load_file(tmp_path / "lora.safetensors")
    layer = "single_transformer_blocks.0.proj_out"
    assert tensors[f"transformer.{layer}.lora_A.weight"].shape[0] == RANK
    plain = pipeline.transformer.get_submodule(layer).weight.detach().clone()
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    down, up = (tensors[f"transformer.{layer}.lora_{one}.weight"].float() for one in "AB")
    torch.testing.assert_close(pipeline.transformer.get_submodule(layer).weight, plain + up @ down)

"""Networks that are taken for FLUX.1 Kontext's, and what is said of each."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from checking import TRANSFORMER, check, rewrite
from safetensors.torch import load_file, save_file
from single_files import bfl_transformer

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.export.checkpoint import open_checkpoint

CASES = {
    "FLUX.2": ("double_stream_modulation_img.lin.weight", "is FLUX.2 "),
    "FLUX.2 in diffusers' names": ("double_stream_modulation_img.linear.weight", "is FLUX.2 "),
    "Chroma": ("distilled_guidance_layer.in_proj.weight", "is Chroma"),
    "Qwen-Image": ("txt_norm.weight", "is Qwen-Image"),
    "ControlNet": ("controlnet_blocks.0.weight", "is a ControlNet"),
    "Redux": ("redux_up.weight", "is FLUX.1 Redux"),
    "SD 3": ("joint_blocks.0.x_block.attn.qkv.weight", "is Stable Diffusion 3"),
    "SDXL": ("model.diffusion_model.input_blocks.0.0.weight", r"is Stable Diffusion \(a U-Net\)"),
    "HunyuanVideo": ("txt_in.individual_token_refiner.blocks.0.norm1.weight", "is HunyuanVideo"),
    "Wan": ("blocks.0.cross_attn.q.weight", "is Wan"),
    "LoRA of kohya": ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "is a LoRA, not a checkpoint"),
    "LoRA of peft": ("transformer.x_embedder.lora_A.weight", "is a LoRA, not a checkpoint .*fuse it"),
    "LoKr": ("diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1", "is a LoRA, not a checkpoint"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("whole", [False, True], ids=["alone", "beside FLUX.1's names"])
def test_it_is_named(checkpoint_path: Path, tmp_path: Path, name: str, whole: bool):
    tensor, message = CASES[name]
    tensors = {tensor: torch.zeros(4, 4)} | ({"img_in.weight": torch.zeros(64, 64)} if whole else {})
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=rf"x\.safetensors {message}"):
        check(checkpoint_path, transformer=tmp_path / "x.safetensors")


@pytest.mark.parametrize(("channels", "message"), [(384, "is FLUX.1 Fill"), (128, "is FLUX.1 Canny or Depth")])
@pytest.mark.parametrize("bfl", [True, False])
def test_fill_and_control_are_known_by_their_input(checkpoint_copy: Path, channels: int, message: str, bfl: bool):
    def change(tensors):
        made = bfl_transformer(dict(tensors)) if bfl else dict(tensors)
        made["img_in.weight" if bfl else "x_embedder.weight"] = torch.zeros(64, channels)
        tensors.clear()
        tensors.update(made)

    rewrite(checkpoint_copy / TRANSFORMER, change)
    with pytest.raises(CheckpointError, match=message):
        check(checkpoint_copy)


class TestDev:
    """FLUX.1 [dev] has Kontext's tensors: a name is all that tells."""

    @pytest.mark.parametrize(
        ("name", "warned"),
        [
            ("flux1-dev.safetensors", True),
            ("FLUX.1-Krea-dev_fp8.safetensors", True),
            ("flux1-dev-kontext_fp8_scaled.safetensors", False),
            ("flux1-kontext-dev.safetensors", False),
            ("my-finetune.safetensors", False),
        ],
    )
    def test_its_files_name_is_warned_of(
        self, checkpoint_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, warned: bool
    ):
        save_file(load_file(checkpoint_path / TRANSFORMER), tmp_path / name)
        check(checkpoint_path, transformer=tmp_path / name)
        assert ("is named like FLUX.1 [dev]" in caplog.text) is warned

    @pytest.mark.parametrize(("pipeline", "warned"), [("FluxPipeline", True), ("FluxKontextPipeline", False)])
    def test_another_pipeline_of_flux_is_warned_of(
        self, checkpoint_copy: Path, caplog: pytest.LogCaptureFixture, pipeline: str, warned: bool
    ):
        (checkpoint_copy / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
        with caplog.at_level(logging.WARNING):
            open_checkpoint(checkpoint_copy)
        assert (f"is a {pipeline}, not a FluxKontextPipeline" in caplog.text) is warned

    def test_flux_2s_pipeline_is_refused(self, checkpoint_copy: Path):
        (checkpoint_copy / "model_index.json").write_text('{"_class_name": "Flux2Pipeline"}')
        with pytest.raises(CheckpointError, match=r"is FLUX\.2 \(Flux2Pipeline\)"):
            check(checkpoint_copy)

"""A bundle with LoRA files fused makes the picture that diffusers makes with them, whoever wrote the files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from lora_files import DOUBLE, MLP, SINGLE, D, number, pair, peft_metadata, write_file
from plain_flow import before_rounding

from kontext_trt import Bundle, Kontext
from kontext_trt.export.fuse_lora import fuse_lora

if TYPE_CHECKING:
    from diffusers import FluxKontextPipeline

TOLERANCE = 1e-4  # of 0..1, for a float32 picture
STEPS = 2
KOHYA = {"a": "lora_down", "b": "lora_up"}
LAYERS = {
    f"transformer.{DOUBLE}.0.attn.to_q": (D, D),
    f"transformer.{DOUBLE}.1.ff.net.0.proj": (MLP, D),
    f"transformer.{DOUBLE}.0.norm1.linear": (6 * D, D),
    f"transformer.{SINGLE}.1.proj_out": (D, D + MLP),
    "transformer.x_embedder": (D, 64),
    "transformer.proj_out": (64, D),
}
PEFT = {name: values for layer, (out, inner) in LAYERS.items() for name, values in pair(layer, out, 4, inner).items()}
BLOCKS = {
    "lora_unet_double_blocks_0_img_attn_qkv": (3 * D, D),
    "lora_unet_double_blocks_1_txt_mlp_2": (D, MLP),
    "lora_unet_single_blocks_0_linear1": (3 * D + MLP, D),
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (D, D),
}
KOHYA_FILE = {
    name: values
    for layer, (out, inner) in BLOCKS.items()
    for name, values in pair(layer, out, 4, inner, **KOHYA).items()
} | {f"{layer}.alpha": number(2) for layer in BLOCKS}


def noise() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((1, 64, 64)).astype(np.float32)


def ours(bundle: Bundle, image) -> np.ndarray:
    with Kontext.open(bundle) as kontext:
        result = kontext.edit(image, "make it blue", size=(128, 128), steps=STEPS, guidance=2.5, seed=0, noise=noise())
        return before_rounding(bundle, result)


def theirs(pipeline: FluxKontextPipeline, image) -> np.ndarray:
    with torch.no_grad():
        return pipeline(
            image=image,
            prompt=["make it blue"],
            latents=torch.from_numpy(noise()),
            width=128,
            height=128,
            max_area=128 * 128,
            num_inference_steps=STEPS,
            guidance_scale=2.5,
            output_type="np",
            _auto_resize=False,
        ).images


@pytest.fixture
def their_copy(pipeline: FluxKontextPipeline) -> FluxKontextPipeline:
    """diffusers' pipeline, to alter: networks of its own, the rest shared."""
    made = copy.copy(pipeline)
    for name in ("transformer", "text_encoder"):
        setattr(made, name, copy.deepcopy(getattr(pipeline, name)))
    made.set_progress_bar_config(disable=True)
    return made


def by_diffusers(path: Path, pipeline: FluxKontextPipeline, scale: float) -> None:
    """Its own reader and its own fusing."""
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name)
    pipeline.fuse_lora(components=["transformer"], lora_scale=scale)
    pipeline.unload_lora_weights()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PEFT", pytest.param("kohya", marks=pytest.mark.check)])
def test_a_file_that_diffusers_reads(
    kind: str, bundle: Bundle, their_copy, pipeline, picture: Callable, tmp_path: Path
):
    image, path = picture(128, 128), tmp_path / "lora.safetensors"
    if kind == "PEFT":
        write_file(
            path, PEFT, peft_metadata(r=4, lora_alpha=8, target_modules=[name.partition(".")[2] for name in LAYERS])
        )
    else:  # diffusers keeps 19 and 38 blocks of these alone, and no text encoder of such a file
        write_file(path, {name: values for name, values in KOHYA_FILE.items() if "te1" not in name})
    by_diffusers(path, their_copy, 0.7)
    made = ours(fuse_lora(bundle, tmp_path / "fused", [(path, 0.7)]), image)
    np.testing.assert_allclose(made, theirs(their_copy, image), atol=TOLERANCE, rtol=0)
    assert np.abs(made - theirs(pipeline, image)).max() > 100 * TOLERANCE, "the LoRA changes the picture"


def test_two_files_add_up_text_encoders_too(bundle: Bundle, their_copy, picture: Callable, tmp_path: Path):
    """diffusers silences the first when the second is loaded; here they are added by hand."""
    image = picture(128, 128)
    one = write_file(tmp_path / "one.safetensors", PEFT)
    two = write_file(tmp_path / "two.safetensors", KOHYA_FILE)
    made = ours(fuse_lora(bundle, tmp_path / "fused", [(one, 0.5), (two, -0.8)]), image)
    state = their_copy.transformer.state_dict()
    with torch.no_grad():
        for layer in LAYERS:
            add(state, layer.partition(".")[2], PEFT, layer, "lora_A", "lora_B", 0.5, slice(None))
        rows = {f"{DOUBLE}.0.attn.to_{name}": slice(i * D, i * D + D) for i, name in enumerate("qkv")}
        for name, of in rows.items():
            add(state, name, KOHYA_FILE, "lora_unet_double_blocks_0_img_attn_qkv", "lora_down", "lora_up", -0.4, of)
        rows = {f"{SINGLE}.0.attn.to_{name}": slice(i * D, i * D + D) for i, name in enumerate("qkv")}
        rows[f"{SINGLE}.0.proj_mlp"] = slice(3 * D, None)
        for name, of in rows.items():
            add(state, name, KOHYA_FILE, "lora_unet_single_blocks_0_linear1", "lora_down", "lora_up", -0.4, of)
        name = f"{DOUBLE}.1.ff_context.net.2"
        add(state, name, KOHYA_FILE, "lora_unet_double_blocks_1_txt_mlp_2", "lora_down", "lora_up", -0.4, slice(None))
        encoder = their_copy.text_encoder.state_dict()
        (clip,) = (one.removesuffix(".weight") for one in encoder if one.endswith("layers.0.self_attn.q_proj.weight"))
        layer = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
        add(encoder, clip, KOHYA_FILE, layer, "lora_down", "lora_up", -0.4, slice(None))
    np.testing.assert_allclose(made, theirs(their_copy, image), atol=TOLERANCE, rtol=0)


def add(state, name: str, file, layer: str, down: str, up: str, scale: float, rows: slice) -> None:
    delta = file[f"{layer}.{up}.weight"][rows].astype(np.float64) @ file[f"{layer}.{down}.weight"].astype(np.float64)
    state[f"{name}.weight"] += torch.from_numpy(scale * delta).float()

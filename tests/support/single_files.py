"""Rewriting a diffusers checkpoint in BFL's and ComfyUI's names, independently of the package's own table of names.

Written out from BFL's module structure; `test_checkpoint` checks it against diffusers' converter.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FP8_MAX = 448.0


def bfl_transformer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' transformer tensors under BFL's names, fused as BFL fuses them."""
    out: dict[str, Tensor] = {}
    rest = dict(tensors)

    def move(old: str, new: str) -> None:
        for suffix in ("weight", "bias"):
            out[f"{new}.{suffix}"] = rest.pop(f"{old}.{suffix}")

    def fuse(olds: list[str], new: str) -> None:
        for suffix in ("weight", "bias"):
            out[f"{new}.{suffix}"] = torch.cat([rest.pop(f"{old}.{suffix}") for old in olds])

    move("x_embedder", "img_in")
    move("context_embedder", "txt_in")
    for ours, theirs in (("timestep", "time_in"), ("guidance", "guidance_in"), ("text", "vector_in")):
        move(f"time_text_embed.{ours}_embedder.linear_1", f"{theirs}.in_layer")
        move(f"time_text_embed.{ours}_embedder.linear_2", f"{theirs}.out_layer")
    for i in range(1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks"))):
        a, b = f"transformer_blocks.{i}", f"double_blocks.{i}"
        move(f"{a}.norm1.linear", f"{b}.img_mod.lin")
        move(f"{a}.norm1_context.linear", f"{b}.txt_mod.lin")
        fuse([f"{a}.attn.to_{x}" for x in "qkv"], f"{b}.img_attn.qkv")
        fuse([f"{a}.attn.add_{x}_proj" for x in "qkv"], f"{b}.txt_attn.qkv")
        move(f"{a}.attn.to_out.0", f"{b}.img_attn.proj")
        move(f"{a}.attn.to_add_out", f"{b}.txt_attn.proj")
        for mine, its in (("ff", "img_mlp"), ("ff_context", "txt_mlp")):
            move(f"{a}.{mine}.net.0.proj", f"{b}.{its}.0")
            move(f"{a}.{mine}.net.2", f"{b}.{its}.2")
        for x, name in (("q", "query"), ("k", "key")):
            out[f"{b}.img_attn.norm.{name}_norm.scale"] = rest.pop(f"{a}.attn.norm_{x}.weight")
            out[f"{b}.txt_attn.norm.{name}_norm.scale"] = rest.pop(f"{a}.attn.norm_added_{x}.weight")
    for i in range(1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("single_transformer"))):
        a, b = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
        move(f"{a}.norm.linear", f"{b}.modulation.lin")
        fuse([f"{a}.attn.to_q", f"{a}.attn.to_k", f"{a}.attn.to_v", f"{a}.proj_mlp"], f"{b}.linear1")
        move(f"{a}.proj_out", f"{b}.linear2")
        out[f"{b}.norm.query_norm.scale"] = rest.pop(f"{a}.attn.norm_q.weight")
        out[f"{b}.norm.key_norm.scale"] = rest.pop(f"{a}.attn.norm_k.weight")
    move("proj_out", "final_layer.linear")
    for suffix in ("weight", "bias"):
        scale, shift = rest.pop(f"norm_out.linear.{suffix}").chunk(2)
        out[f"final_layer.adaLN_modulation.1.{suffix}"] = torch.cat([shift, scale])
    assert not rest, rest.keys()
    return {name: tensor.contiguous() for name, tensor in out.items()}


def bfl_vae(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' autoencoder tensors under BFL's names; attention weights become 1x1 convolutions."""
    levels = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.down_blocks"))
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        side, *parts = name.split(".")
        kind = parts[-1]
        new = [side]
        if parts[0] in ("down_blocks", "up_blocks"):
            level = int(parts[1]) if parts[0] == "down_blocks" else levels - 1 - int(parts[1])
            new += [parts[0].removesuffix("_blocks"), str(level)]
            if parts[2] == "resnets":
                new += ["block", parts[3], parts[4].replace("conv_shortcut", "nin_shortcut")]
            else:
                new += [parts[2].removesuffix("rs").removesuffix("e") + "e", "conv"]
        elif parts[0] == "mid_block" and parts[1] == "resnets":
            new += ["mid", f"block_{int(parts[2]) + 1}", parts[3].replace("conv_shortcut", "nin_shortcut")]
        elif parts[0] == "mid_block":
            names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
            new += ["mid", "attn_1", names[parts[3]]]
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
        else:
            new += [parts[0].replace("conv_norm_out", "norm_out")]
        out[".".join([*new, kind])] = tensor.contiguous()
    return out


def fp8_scaled(tensors: dict[str, Tensor], *, only: str = "") -> dict[str, Tensor]:
    """ComfyUI's `fp8_scaled`: matrices as FP8 E4M3 with one `scale_weight` each, and a marker."""
    out: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and name.endswith(".weight") and only in name:
            scale = tensor.abs().max().float() / FP8_MAX
            out[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            out[name.removesuffix("weight") + "scale_weight"] = scale.reshape(())
        else:
            out[name] = tensor
    return out


def dequantized(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """What `fp8_scaled` means, in a plain type."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name.removesuffix("weight") + "scale_weight")
        if name.endswith((".scale_weight", "scaled_fp8")):
            continue
        out[name] = tensor.to(dtype) if scale is None else (tensor.float() * scale.float()).to(dtype)
    return out


def write_models_folder(checkpoint: Path, models: Path, *, fp8: bool = False) -> None:
    """A ComfyUI `models` folder with the weights of a diffusers folder."""
    read = {
        "transformer": load_file(checkpoint / "transformer/diffusion_pytorch_model.safetensors"),
        "vae": load_file(checkpoint / "vae/diffusion_pytorch_model.safetensors"),
        "clip": load_file(checkpoint / "text_encoder/model.safetensors"),
        "t5": load_file(checkpoint / "text_encoder_2/model.safetensors"),
    }
    transformer, t5 = bfl_transformer(read["transformer"]), read["t5"]
    if fp8:
        transformer, t5 = fp8_scaled(transformer, only="_blocks."), fp8_scaled(t5, only="encoder.block")
    for folder in ("diffusion_models", "vae", "text_encoders", "tokenizers"):
        (models / folder).mkdir(parents=True)
    suffix = "_fp8_scaled" if fp8 else ""
    save_file(transformer, models / f"diffusion_models/flux1-dev-kontext{suffix}.safetensors")
    save_file(bfl_vae(read["vae"]), models / "vae/ae.safetensors")
    clip = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in read["clip"].items()}
    t5 = {**t5, "spiece_model": torch.zeros(7, dtype=torch.uint8)}
    clip |= {"text_projection.weight": torch.zeros(4, 4), "logit_scale": torch.zeros(())}
    save_file(clip, models / "text_encoders/clip_l.safetensors")
    save_file(t5, models / f"text_encoders/t5xxl_{'fp8_e4m3fn_scaled' if fp8 else 'fp16'}.safetensors")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(checkpoint / name, models / "tokenizers" / name)
    shutil.copy(checkpoint / "kontext_sizes.json", models)

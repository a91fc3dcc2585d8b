"""Checkpoints opened and compared with the networks."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint
from kontext_trt.export.configs import ModelConfig
from kontext_trt.export.export import check_tensors
from kontext_trt.export.trace import expected_tensors

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def check(checkpoint_path: Path, **files: Path) -> None:
    """Open and compare with the networks, as an export does before it traces."""
    checkpoint = open_checkpoint(checkpoint_path, CheckpointFiles(**files))
    config = ModelConfig(
        transformer=checkpoint.transformer.config,
        vae=checkpoint.vae.config,
        clip=checkpoint.clip.config,
        t5=checkpoint.t5.config,
    )
    names = ("clip", "t5", "vae_encoder", "conditioner", "denoiser", "vae_decoder")
    check_tensors(checkpoint, {name: expected_tensors(name, config) for name in names})


def rewrite(file: Path, change) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)

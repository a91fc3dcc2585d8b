"""Checkpoints opened and compared with the networks."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from kontext_trt.engine.components import COMPONENTS
from kontext_trt.export.checkpoint import CheckpointFiles, open_checkpoint
from kontext_trt.export.export import check_tensors
from kontext_trt.export.graphs.trace import expected_tensors

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def check(checkpoint_path: Path, **files: Path) -> None:
    """Open and compare with the networks, as an export does before it traces."""
    checkpoint = open_checkpoint(checkpoint_path, CheckpointFiles(**files))
    check_tensors(checkpoint, {name: expected_tensors(name, checkpoint.config) for name in COMPONENTS})


def rewrite(file: Path, change) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)

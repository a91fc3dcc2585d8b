"""Training that starts from the checkpoint in the repository."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.examples.small_kontext.disassemble import state_of

ROOT = Path(__file__).parents[3]
CHECKPOINT = ROOT / "examples/small_kontext/checkpoint"


def test_training_goes_on_from_the_checkpoint(tmp_path: Path):
    progress, tensors = state_of(CHECKPOINT)
    assert (progress.stage, progress.seconds, progress.smoke) == ("flow", 0.0, False)
    assert set(tensors) == {"vae.average", "flow.average"}
    with safe_open(next((CHECKPOINT / "transformer").glob("*.safetensors")), "pt") as stored:
        weight = stored.get_tensor("x_embedder.bias")
    flow = tensors["flow.average"]
    assert any(torch.equal(flow[at : at + len(weight)], weight) for at in range(0, len(flow), 64))
    fresh = state_of(CHECKPOINT, new_text=True)[1]
    assert torch.equal(fresh["vae.average"], tensors["vae.average"])
    changed = (fresh["flow.average"] != flow).float().mean()
    assert 0.05 < changed < 0.3
    with pytest.raises(CheckpointError, match="is no diffusers folder of the small Kontext"):
        state_of(tmp_path)

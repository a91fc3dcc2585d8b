"""Tuning the small Kontext's decoder."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kontext_trt.benchmarks.quality.editbench.scene import SIZES, SQUARE
from kontext_trt.engine.errors import CheckpointError
from kontext_trt.examples.small_kontext import tune_decoder
from kontext_trt.examples.small_kontext.model import SMOKE, new_pipeline
from kontext_trt.examples.small_kontext.tune_decoder import WEIGHTS_FILE, Tuner, detail_loss, quality, tune
from kontext_trt.export.tiny import save_checkpoint


@pytest.fixture
def pipeline(tokenizers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tune_decoder, "NUM_CHECKED", 6)
    return new_pipeline(SMOKE, *tokenizers, seed=0)


def test_details_count_more():
    picture = torch.zeros(1, 3, 16, 16)
    picture[..., 8, 8] = 1.0
    flat, detail = picture.clone(), picture.clone()
    flat[..., 2, 2], detail[..., 8, 8] = 0.5, 0.5
    assert detail_loss(picture, picture) == 0
    assert detail_loss(detail, picture) > 2 * detail_loss(flat, picture)


@pytest.mark.check  # it takes most of a minute
def test_the_decoder_alone_learns(pipeline, monkeypatch: pytest.MonkeyPatch):
    """Two pictures by heart."""
    monkeypatch.setattr(tune_decoder, "LEARNING_RATE", 3e-3)
    tuner = Tuner(pipeline.vae)
    pictures = tuner._pictures(2, SQUARE)
    monkeypatch.setattr(Tuner, "_pictures", lambda self, batch, size: pictures)
    before = {name: tensor.clone() for name, tensor in pipeline.vae.state_dict().items()}
    losses = [tuner.step(2, 0.03) for _ in range(40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    last = [parameter.clone() for parameter in pipeline.vae.decoder.parameters()]
    with tuner.adam.averaged():
        after = pipeline.vae.state_dict()
        changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        assert {name.partition(".")[0] for name in changed} == {"decoder"}
        assert any(not torch.equal(a, b) for a, b in zip(last, pipeline.vae.decoder.parameters(), strict=True))


def test_quality_is_of_held_out_pictures(pipeline):
    found = quality(pipeline.vae)
    assert 0 < found.psnr_db < 20
    assert 0.5 < found.wrong <= 1


def test_all_but_the_autoencoder_stays(pipeline, tmp_path: Path):
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "tuned"
    save_checkpoint(pipeline, checkpoint, SIZES, dtype=torch.bfloat16)
    tune(checkpoint, folder, minutes=0.002, batch=1)
    files = {file.relative_to(checkpoint) for file in checkpoint.rglob("*") if file.is_file()}
    assert files == {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    changed = {str(file) for file in files if (checkpoint / file).read_bytes() != (folder / file).read_bytes()}
    assert changed <= {WEIGHTS_FILE}
    old, new = load_file(checkpoint / WEIGHTS_FILE), load_file(folder / WEIGHTS_FILE)
    assert {name: (one.dtype, one.shape) for name, one in old.items()} == {
        name: (one.dtype, one.shape) for name, one in new.items()
    }


def test_no_checkpoint_is_said(tmp_path: Path):
    with pytest.raises(CheckpointError, match="is no diffusers folder of the small Kontext"):
        tune(tmp_path, tmp_path / "new", minutes=1, batch=1)

"""Training, interrupted and resumed."""

from dataclasses import replace
from pathlib import Path

import pytest

from kontext_trt.engine.errors import CheckpointError
from kontext_trt.examples.small_kontext.assemble import open_pipeline
from kontext_trt.examples.small_kontext.options import Options
from kontext_trt.examples.small_kontext.state import load_state
from kontext_trt.examples.small_kontext.trainer import Trainer


def test_smoke_training_resumes_and_assembles(tmp_path: Path):
    options = Options(minutes=0.001, device="cpu", smoke=True)
    Trainer(tmp_path / "run", options, resume=False).train()
    progress, _ = load_state(tmp_path / "run" / "state")
    assert progress.stage == "flow"
    assert progress.flow_steps > 0
    with pytest.raises(CheckpointError, match="go on with --resume"):
        Trainer(tmp_path / "run", options, resume=False)
    Trainer(tmp_path / "run", replace(options, minutes=0.002), resume=True).train()
    again, _ = load_state(tmp_path / "run" / "state")
    assert again.flow_steps > progress.flow_steps
    assert again.epoch == 1
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000
    pipeline = open_pipeline(tmp_path / "run" / "state")
    assert pipeline.vae.config.scaling_factor == again.scaling
    part = tmp_path / "run" / "state" / "part-0.bin"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        load_state(tmp_path / "run" / "state")
    with pytest.raises(CheckpointError, match="nothing to resume"):
        Trainer(tmp_path / "other", options, resume=True)

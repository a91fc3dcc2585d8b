"""What is read off a transformer's tensors and configuration."""

import json
from pathlib import Path

import pytest
from checking import TRANSFORMER, check, rewrite

from kontext_trt.engine.errors import CheckpointError


class TestRefusals:
    def test_no_guidance_embedding(self, checkpoint_copy: Path):
        def change(tensors):
            for name in [name for name in tensors if "guidance_embedder" in name]:
                del tensors[name]

        rewrite(checkpoint_copy / TRANSFORMER, change)
        with pytest.raises(CheckpointError, match=r"no guidance embedding .*guidance_in.* such as schnell"):
            check(checkpoint_copy)

    def test_config_without_guidance(self, checkpoint_copy: Path):
        file = checkpoint_copy / "transformer/config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "guidance_embeds": False}))
        with pytest.raises(CheckpointError, match=r"no guidance embedding \(guidance_embeds is false in its config\)"):
            check(checkpoint_copy)

"""The commands `lora show`, `lora fuse`, and what `inspect` says of what was fused."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import run
from lora_files import DOUBLE, D, number, pair, random, write_file

from kontext_trt import Bundle

Q = f"transformer.{DOUBLE}.0.attn.to_q"


def test_show_fuse_and_inspect(bundle_path: Path, tmp_path: Path):
    file = write_file(
        tmp_path / "style.safetensors", {**pair(Q, D, 4), f"{Q}.alpha": number(2), "bundle_emb.x": random("x", 3)}
    )
    refused = run("lora", "show", file, code=1)
    assert "bundle_emb.x (a learned embedding); --allow-unused leaves them out" in refused.stderr
    shown = json.loads(run("lora", "show", file, "--allow-unused", "--json").stdout)
    assert shown["family"] == "diffusers (PEFT, ai-toolkit, OneTrainer): LoRA"
    assert shown["unused"] == ["bundle_emb.x"]
    assert shown["changes"] == [
        {
            "part": "transformer",
            "method": "LoRA",
            "tensors": 1,
            "ranks": [4],
            "scales": [0.5],
            "names": ["transformer_blocks.0.attn.to_q.weight"],
        }
    ]
    out = tmp_path / "fused"
    done = run("lora", "fuse", bundle_path, f"{file}:0.5", f"{file}:-0.25", out, "--allow-unused")
    assert "of fused weights written, the rest shared with" in done.stdout
    assert [record.scale for record in Bundle.open(out).manifest.loras] == [0.5, -0.25]
    told = run("inspect", out).stdout
    assert "fused LoRA style.safetensors times 0.5 (diffusers (PEFT, ai-toolkit, OneTrainer): LoRA), sha256" in told


def test_show_prints_a_table(tmp_path: Path):
    file = write_file(tmp_path / "style.safetensors", pair(Q, D, 4))
    told = run("lora", "show", file).stdout
    assert "style.safetensors: diffusers (PEFT, ai-toolkit, OneTrainer): LoRA" in told
    assert "the transformer  LoRA    1        4      1" in told


def test_an_export_refuses_a_scale_that_is_none(checkpoint_path: Path, tmp_path: Path):
    done = run("export", checkpoint_path, tmp_path / "bundle", "--lora", "style:much", code=1)
    assert "style:much is no FILE:SCALE, such as style.safetensors:0.8" in done.stderr

"""The options of `export` that say which files of a checkpoint are taken, and how."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run
from hub_server import TOKEN, Hub
from once_per_run import OncePerRun

from kontext_trt import Bundle

ROOT = Path(__file__).parents[2]


def test_a_variant_that_is_not_there(checkpoint_path: Path, tmp_path: Path):
    done = run("export", checkpoint_path, tmp_path / "bundle", "--variant", "fp16", code=1)
    assert "has the variant fp16; there are: none" in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.check  # it exports
def test_a_checkpoint_of_the_hub(hub: Hub, once_per_run: OncePerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a process of its own, which finds the hub by its environment."""
    repo, small = "black-forest-labs/FLUX.1-Kontext-dev", ROOT / "examples/small_kontext/checkpoint"
    hub.add(repo, small, gated=True, license_name="a-licence", license_link="LICENSE.md")
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    refused = run("export", repo, tmp_path / "bundle", code=1, fresh=True)
    assert f"error: {repo} is gated: accept its licence at {hub.endpoint}/{repo} with your account" in refused.stderr
    assert not (tmp_path / "bundle").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = run("export", repo, tmp_path / "bundle", graphs=once_per_run, fresh=True)
    assert f"{repo}: licence a-licence, {hub.endpoint}/{repo}/blob/main/LICENSE.md" in done.stderr
    assert "fetching transformer/diffusion_pytorch_model.safetensors, 14.3 MiB" in done.stderr
    assert Bundle.open(tmp_path / "bundle").manifest.source == f"{repo}@{hub.repositories[repo].commit[:12]}"
    typo = run("export", "black-forest-labs/FLUX.1-Kontekst", tmp_path / "other", code=1, fresh=True)
    assert "is no file or folder here, and" in typo.stderr
    assert "is no repository that can be seen" in typo.stderr

"""The options of `export` that say which files of a checkpoint are taken, and how."""

from __future__ import annotations

from pathlib import Path

from command_line import run


def test_a_variant_that_is_not_there(checkpoint_path: Path, tmp_path: Path):
    done = run("export", checkpoint_path, tmp_path / "bundle", "--variant", "fp16", code=1)
    assert "has the variant fp16; there are: none" in done.stderr
    assert not (tmp_path / "bundle").exists()

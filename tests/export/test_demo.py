"""The demo, run again: it replaces what a demo made, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kontext_trt import Bundle
from kontext_trt.engine.errors import ExportError
from kontext_trt.export.checkpoint import open_checkpoint
from kontext_trt.export.demo import MARK, Demo, run_demo
from kontext_trt.export.export import ExportOptions, export_bundle


def test_a_demo_replaces_what_a_demo_made(checkpoint_path: Path, tmp_path: Path):
    small = Demo(checkpoint=checkpoint_path, steps=1)
    for demo in (replace(small, checkpoint=None), replace(small, checkpoint=None), small):
        run_demo(tmp_path, demo)
    assert Bundle.open(tmp_path / "bundle").manifest.source == str(checkpoint_path)


@pytest.mark.parametrize("name", ["bundle", "checkpoint"])
def test_a_demo_leaves_what_is_not_its_own(bundle_path: Path, tmp_path: Path, name: str):
    """`bundle` is also what the README calls a user's own."""
    shutil.copytree(bundle_path, tmp_path / name)
    with pytest.raises(ExportError, match=f"{name} exists and no demo made it; choose another folder: "):
        run_demo(tmp_path, Demo())
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("mark", "what"), [("manifest.json", "a bundle"), ("model_index.json", "a checkpoint")])
def test_a_demo_fills_no_bundle_and_no_checkpoint(tmp_path: Path, mark: str, what: str):
    (tmp_path / mark).touch()
    with pytest.raises(ExportError, match=f"is {what}; name a folder that a demo may fill"):
        run_demo(tmp_path, Demo())
    assert [path.name for path in tmp_path.iterdir()] == [mark]


def test_a_demo_leaves_a_picture_that_is_not_its_own(tmp_path: Path):
    (tmp_path / "edited.png").touch()
    with pytest.raises(ExportError, match=r"edited\.png exists and no demo made it; choose another folder"):
        run_demo(tmp_path, Demo())
    assert [path.name for path in tmp_path.iterdir()] == ["edited.png"]


def test_a_demo_edits_no_picture_in_its_place(bundle_path: Path, tmp_path: Path):
    """What an earlier one made may be edited elsewhere."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / MARK).touch()
    (tmp_path / "edited.png").touch()
    with pytest.raises(ExportError, match=r"edited\.png is to be edited and would be replaced; choose another folder"):
        run_demo(tmp_path, Demo(image=tmp_path / "bundle" / ".." / "edited.png"))


def test_an_export_over_a_demos_bundle_is_no_demos(checkpoint_path: Path, bundle_copy: Path):
    (bundle_copy / MARK).touch()
    export_bundle(open_checkpoint(checkpoint_path), bundle_copy, ExportOptions(overwrite=True))
    bundle_copy.rename(bundle_copy.with_name("bundle"))
    with pytest.raises(ExportError, match="no demo made it"):
        run_demo(bundle_copy.parent, Demo(checkpoint=checkpoint_path))

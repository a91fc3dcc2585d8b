"""What writing files changes beside them is told: what gave way, and which folder is new."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kontext_trt.engine.system.changes import is_same_file, telling_changes
from kontext_trt.engine.system.files import atomic_file


def test_what_gives_way_and_what_is_made(tmp_path: Path) -> None:
    told: list[str] = []
    (old := tmp_path / "old").write_text("old")
    new, far = tmp_path / "new", tmp_path / "a" / "b" / "far"
    with telling_changes([old, new, far], told.append):
        far.parent.mkdir(parents=True)
        for path in (old, new, far):
            with atomic_file(path) as file:
                file.write(b"new")
    assert told == [f"made folder {far.parent}", f"replaced {old}"]


def test_nothing_is_told_of_what_did_not_happen(tmp_path: Path) -> None:
    told: list[str] = []
    (old := tmp_path / "old").write_text("old")
    with pytest.raises(OSError, match="full"), telling_changes([old, tmp_path / "a" / "b"], told.append):
        raise OSError("full")
    assert told == []
    with pytest.raises(OSError, match="full"), telling_changes([tmp_path / "a" / "b"], told.append):
        (tmp_path / "a").mkdir()
        raise OSError("full")
    assert told == [f"made folder {tmp_path / 'a'}"], "it is there, whatever came after"


def test_links_and_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "x").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "soft").symlink_to("x")
    os.link(file, tmp_path / "hard")
    monkeypatch.chdir(tmp_path / "folder")
    for other in (file, tmp_path / "soft", tmp_path / "hard", Path("../x"), tmp_path / "folder" / ".." / "x"):
        assert is_same_file(file, other)
    for other in (tmp_path / "gone", Path("a\0b"), tmp_path / "folder"):
        assert not is_same_file(file, other)
    assert not is_same_file(Path("gone"), Path("gone"))

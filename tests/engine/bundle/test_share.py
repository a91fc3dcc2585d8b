"""A new bundle takes over what was built for the old one, and nothing that only seems to lie there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt.engine.bundle.share import files_below, share_files
from kontext_trt.engine.errors import BundleError


def test_files_are_shared_at_every_depth_and_locks_are_not(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for place in ("plans/clip/a.plan", "plans/clip/.a.left/plan", "plans/.locks/a.lock", "caches/timing/one.cache"):
        (old / place).parent.mkdir(parents=True, exist_ok=True)
        (old / place).write_text(place)
    new.mkdir()
    places = list(files_below(old, ("plans", "caches", "reports")))
    assert places == ["plans/clip/a.plan", "caches/timing/one.cache"]
    share_files(old, new, places)
    assert (new / "plans/clip/a.plan").read_text() == "plans/clip/a.plan"
    assert (new / "plans/clip/a.plan").stat().st_nlink in (1, 2)


@pytest.mark.parametrize("link", ["plans", "plans/clip", "plans/clip/a.plan"])
def test_links_are_refused(tmp_path: Path, link: str) -> None:
    outside, path = tmp_path / "outside", tmp_path / "bundle" / link
    outside.mkdir()
    (outside / "theirs").touch()
    path.parent.mkdir(parents=True)
    path.symlink_to(outside / "theirs" if link.endswith(".plan") else outside)
    with pytest.raises(BundleError, match="is a symbolic link"):
        list(files_below(tmp_path / "bundle", ("plans",)))

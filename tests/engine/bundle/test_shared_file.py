"""Caches are read only if this user wrote them, and never through a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt.engine.bundle.shared_file import SharedFile
from kontext_trt.engine.errors import BundleError
from kontext_trt.engine.system.signing import VARIABLE


@pytest.fixture
def cache(tmp_path: Path) -> SharedFile:
    (tmp_path / "bundle").mkdir()
    return SharedFile(bundle=tmp_path / "bundle", place="caches/runtime/some.cache")


def test_what_is_kept_is_read_again(cache: SharedFile, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.read() == b""
    cache.update(lambda present: present + b"1")
    cache.update(lambda present: present + b"2")
    assert cache.read() == b"12"
    assert caplog.messages == []


@pytest.mark.parametrize("data", [b"", b"short", b"kernels of somebody else's" * 10])
def test_what_somebody_else_wrote_is_not_read(cache: SharedFile, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    cache.path.parent.mkdir(parents=True)
    cache.path.write_bytes(data)
    assert cache.read() == b""
    assert "was not written by this user, so it is not read" in caplog.text
    cache.update(lambda present: present + b"own")
    assert cache.read() == b"own"


def test_a_cache_under_another_name_is_not_read(cache: SharedFile) -> None:
    cache.update(lambda present: b"of one GPU")
    other = SharedFile(bundle=cache.bundle, place="caches/runtime/other.cache")
    cache.path.rename(other.path)
    assert other.read() == b""


def test_another_key_does_not_fit(cache: SharedFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache.update(lambda present: b"own")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "another.key"))
    assert cache.read() == b""


@pytest.mark.parametrize("link", ["caches", "caches/runtime", "caches/runtime/some.cache", "caches/runtime/some.lock"])
def test_links_are_not_written_through(cache: SharedFile, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"theirs")
    is_file = link.endswith((".cache", ".lock"))
    path = cache.bundle / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside / "file" if is_file else outside)
    with pytest.raises(BundleError, match="is a symbolic link"):
        cache.update(lambda present: b"mine")
    assert [(file.name, file.read_bytes()) for file in outside.iterdir()] == [("file", b"theirs")]

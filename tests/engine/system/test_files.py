"""Files and folders appear whole or not at all."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kontext_trt.engine.system.files import (
    LEFT_SECONDS,
    UNFINISHED,
    atomic_file,
    atomic_folder,
    free_path,
    sha256_file,
    share_file,
)


def test_file_appears_on_a_clean_exit_only(tmp_path: Path):
    path = tmp_path / "a"
    with atomic_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_modes_follow_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "file"):
            pass
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_folder_takes_the_place_of_the_old_one(tmp_path: Path):
    path = tmp_path / "bundle"
    for content in ("one", "two"):
        with atomic_folder(path, replace=True) as folder:
            (folder / content).touch()
    assert [entry.name for entry in path.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), atomic_folder(path, replace=True) as folder:
        (folder / "three").touch()
        raise RuntimeError
    with pytest.raises(FileExistsError, match="made by somebody else"), atomic_folder(path) as folder:
        (folder / "four").touch()
    assert [entry.name for entry in path.iterdir()] == ["two"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_killed_writer_leaves_nothing_under_the_name(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path; from kontext_trt.engine.system.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file:\n"
        "    file.write(bytes(1000)); file.flush(); print('writing', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, tmp_path / "a"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not (tmp_path / "a").exists()


def test_sharing_never_writes_over_a_file(tmp_path: Path):
    """The target may be a link to somebody's checkpoint."""
    (tmp_path / "source").write_bytes(b"bytes")
    (tmp_path / "taken").write_bytes(b"others")
    with pytest.raises(FileExistsError):
        share_file(tmp_path / "source", tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == b"others"


def test_a_free_name_is_the_first_one(tmp_path: Path):
    path = tmp_path / "a.b.safetensors"
    for name in ("a.b.safetensors", "a.b-2.safetensors", "a.b-3.safetensors"):
        assert free_path(path) == tmp_path / name
        (tmp_path / name).touch()


def test_sharing_links_or_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "source").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    assert share_file(tmp_path / "link", tmp_path / "linked") in ("hardlink", "reflink")
    assert not (tmp_path / "linked").is_symlink()

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("kontext_trt.engine.system.files.os.link", refuse)
    monkeypatch.setattr("kontext_trt.engine.system.files._reflink", lambda *_: False)
    assert share_file(tmp_path / "source", tmp_path / "copied") == "copy"
    assert sha256_file(tmp_path / "copied") == sha256_file(tmp_path / "linked")


@pytest.mark.parametrize("name", ["x" * 250, "ä" * 125])
def test_the_longest_names_work(tmp_path: Path, name: str):
    with atomic_file(tmp_path / name) as file:
        file.write(b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"
    with atomic_folder(tmp_path / f"{name[:-1]}y") as folder:
        (folder / "file").touch()
    with atomic_folder(tmp_path / f"{name[:-1]}y", replace=True) as folder:
        (folder / "other").touch()
    assert [file.name for file in (tmp_path / f"{name[:-1]}y").iterdir()] == ["other"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/picture").write_bytes(b"old")
    (tmp_path / "link").symlink_to("disk/picture")
    with atomic_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk/picture").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EACCES, errno.EIO, errno.EINVAL, errno.EPERM])
def test_a_file_system_without_links_has_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, code: int):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "source").write_bytes(b"bytes")
    monkeypatch.setattr("kontext_trt.engine.system.files.os.link", refuse)
    monkeypatch.setattr("kontext_trt.engine.system.files._reflink", lambda *_: False)
    assert share_file(tmp_path / "source", tmp_path / "copied") == "copy"
    assert (tmp_path / "copied").read_bytes() == b"bytes"
    assert os.strerror(code) in caplog.text


KILLED = """
import os, signal, sys
from pathlib import Path
from kontext_trt.engine.system.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_goes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "bundle [1]"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    left, young = sorted(tmp_path.glob(".bundle*"))
    others = [tmp_path / name for name in (".bundle [1].notes", ".bundle 1.abcdefgh", ".bundle [1]")]
    for other in others:
        other.mkdir()
    _age(left)
    with atomic_folder(path) as folder:
        assert not left.exists()
        assert young.exists(), "its maker may not have locked it yet"
        _age(folder)
        with atomic_folder(path) as second:
            assert folder.exists(), "it is being filled"
            (second / "whole").touch()
        assert sorted(os.listdir(path)) == ["whole"], "the mark is gone"
        shutil.rmtree(path)
    assert sorted(os.listdir(path)) == []
    assert all(other.exists() for other in others)


def _age(folder: Path) -> None:
    before = time.time() - LEFT_SECONDS - 1
    os.utime(folder / UNFINISHED, (before, before))

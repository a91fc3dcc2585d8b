"""A folder reaches what lies in it, and nothing that a link, a pipe or a way up leads to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watched import watched

from kontext_trt.engine.bundle.folder import MAX_PLACE, Folder
from kontext_trt.engine.errors import BundleError


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    path = tmp_path / "bundle"
    (path / "real").mkdir(parents=True)
    (path / "real/file").write_bytes(b"own")
    with Folder.open(path) as opened:
        yield opened


ACCESS: list[Callable[[Folder, str], object]] = [
    lambda folder, name: folder.read(f"real/{name}", 100),
    lambda folder, name: folder.size(f"real/{name}"),
    lambda folder, name: folder.read(f"real/{name}/secret", 100),
    lambda folder, name: folder.folder(f"real/{name}"),
    lambda folder, name: folder.folder(f"real/{name}/new", create=True),
    lambda folder, name: folder.has_folder(f"real/{name}"),
    lambda folder, name: folder.descriptor(f"real/{name}", os.O_RDWR | os.O_CREAT),
    lambda folder, name: folder.lock(f"real/{name}").__enter__(),
]


@pytest.mark.parametrize("access", range(len(ACCESS)))
@pytest.mark.parametrize("target", ["outside", "outside/secret", "outside/none"])
def test_links_are_not_followed(folder: Folder, outside: Path, target: str, access: int) -> None:
    (folder.path / "real/link").symlink_to(outside.parent / target)
    with watched(outside) as watch:
        with pytest.raises(BundleError, match=r"real/link is a symbolic link, .*local-dir"):
            ACCESS[access](folder, "link")
        assert watch.seen() == []
    assert sorted(os.listdir(outside)) == ["secret"]


@pytest.mark.parametrize("access", range(3))
def test_pipes_do_not_block(folder: Folder, access: int) -> None:
    os.mkfifo(folder.path / "real/pipe")
    with pytest.raises(BundleError, match=r"is no regular (file|folder)"):
        ACCESS[access](folder, "pipe")


@pytest.mark.parametrize("place", ["", ".", "/etc/hosts", "../x", "real/../../x", "a\0b", "x" * (MAX_PLACE + 1)])
def test_places_lead_down(folder: Folder, place: str) -> None:
    with pytest.raises(BundleError, match="is no place inside"):
        folder.read(place, 100)


def test_what_is_its_own_is_read_and_written(folder: Folder) -> None:
    assert folder.read("real/file", 3) == b"own"
    assert folder.size("real/file") == 3
    with folder.folder("one/two", create=True) as made:
        assert made.path == folder.path / "one/two"
        with made.atomic_file("new") as file:
            file.write(b"new")
        assert made.names() == ["new"]
        made.move("new", folder, "moved")
        assert made.names() == []
    assert folder.read("moved", 10) == b"new"
    assert folder.has_folder("one/two")
    assert not folder.has_folder("one/three")


def test_a_longer_file_than_allowed_is_not_read(folder: Folder) -> None:
    os.truncate(folder.path / "real/file", 1 << 40)  # takes no room on disk
    with pytest.raises(BundleError, match="has more than 100 bytes"):
        folder.read("real/file", 100)


def test_removing_removes_the_link(folder: Folder, outside: Path) -> None:
    (folder.path / "link").symlink_to(outside / "secret")
    folder.remove("link")
    folder.remove("link")
    assert (outside / "secret").read_bytes() == b"secret"
    assert not folder.remove_folder("real"), "it is not empty"
    assert folder.has_folder("real")


def test_writing_replaces_a_link_and_not_what_it_points_to(folder: Folder, outside: Path) -> None:
    (folder.path / "link").symlink_to(outside / "secret")
    with folder.atomic_file("link") as file:
        file.write(b"new")
    assert (outside / "secret").read_bytes() == b"secret"
    assert folder.read("link", 10) == b"new"


def test_links_up_to_the_folder_are_the_users_own(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "name").symlink_to(folder.path)
    with Folder.open(tmp_path / "name") as opened:
        assert opened.read("real/file", 10) == b"own"


def test_an_open_folder_stays_what_it_is_when_its_name_becomes_a_link(folder: Folder, outside: Path) -> None:
    with folder.folder("real") as real:
        (folder.path / "real").rename(folder.path / "other")
        (folder.path / "real").symlink_to(outside)
        with real.atomic_file("new"):
            pass
        real.remove("secret")
    assert sorted(os.listdir(outside)) == ["secret"]
    assert (folder.path / "other/new").is_file()


def test_errors_name_the_whole_path(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError, match=f"{folder.path}/real/none"):
        folder.read("real/none", 10)


def test_no_descriptor_stays_open(folder: Folder, outside: Path) -> None:
    (folder.path / "real/link").symlink_to(outside)
    before = len(os.listdir("/proc/self/fd"))
    for access in ACCESS:
        with pytest.raises(BundleError):
            access(folder, "link")
    assert len(os.listdir("/proc/self/fd")) == before

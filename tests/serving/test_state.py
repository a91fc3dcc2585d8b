"""What several processes share in files: whose it is, how it is named, how much of it there may be."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from kontext_trt import OptionError
from kontext_trt.serving.state import LEFT_SECONDS, Shelf, StateFolder


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return StateFolder(tmp_path / "state").shelf("results")


def aged(path: Path, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(path, (past, past))


def test_nobody_else_can_read_any_of_it(shelf: Shelf, tmp_path: Path):
    shelf.write("a", b"1")
    with shelf.locked():
        pass
    paths = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    modes = {path.relative_to(tmp_path).parts[-1]: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert {mode for name, mode in modes.items() if (tmp_path / "state").rglob(name)} <= {0o700, 0o600}
    assert modes["state"] == modes["results"] == 0o700
    assert modes["key"] == modes[".lock"] == modes[shelf.path("a").name] == 0o600


def test_names_of_files_say_nothing_and_lead_nowhere_else(shelf: Shelf, tmp_path: Path):
    for name in ("session-x", "../../key", "/etc/passwd", "\0", "\ud800", "x" * 5000, ""):
        shelf.write(name, name.encode(errors="replace"))
        assert shelf.path(name).parent == tmp_path / "state" / "results"
        assert len(shelf.path(name).name) == 64
        assert shelf.read(name, 60) == name.encode(errors="replace")
    other = StateFolder(tmp_path / "other").shelf("results")
    assert other.path("a").name != shelf.path("a").name, "each folder has its own key"
    assert StateFolder(tmp_path / "state").shelf("sessions").path("a").name != shelf.path("a").name
    assert StateFolder(tmp_path / "state").shelf("results").path("a") == shelf.path("a")


def test_those_who_begin_at_once_have_one_key(tmp_path: Path):
    found: list[str] = []

    def begin() -> None:
        found.append(StateFolder(tmp_path / "state").shelf("a").path("x").name)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in (tmp_path / "state").iterdir() if path.is_file()] == ["key"]


def test_a_folder_that_is_open_to_others_or_no_folder_is_refused(tmp_path: Path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(OptionError, match=r"is open to others \(mode 755, user \d+\): give a folder of your own, and"):
        StateFolder(tmp_path / "open")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match=r"cannot keep a server's state: .*; give another folder"):
        StateFolder(tmp_path / "file")
    StateFolder(tmp_path / "state")
    (tmp_path / "state" / "key").write_bytes(b"short")
    with pytest.raises(OptionError, match="key has 5 bytes, and a key has 32; remove the folder"):
        StateFolder(tmp_path / "state")


def test_what_is_old_goes_and_use_keeps(shelf: Shelf):
    for name in ("old", "used", "new"):
        shelf.write(name, b"1")
    aged(shelf.path("old"), 100)
    aged(shelf.path("used"), 100)
    before = shelf.identity("used")
    shelf.use("used")
    assert shelf.identity("used", 60) == before, "use does not make it another file"
    assert shelf.identity("old", 60) is None
    assert shelf.read("old", 60) is None
    shelf.use("none")
    shelf.remove("none")
    shelf.trim(60, by_use=True)
    assert [shelf.identity(name) is None for name in ("old", "used", "new")] == [True, False, False]
    shelf.trim(60)
    assert [shelf.identity(name) is None for name in ("old", "used", "new")] == [True, True, False]


def test_the_oldest_go_first(shelf: Shelf):
    for age, name in enumerate("abcd"):
        shelf.write(name, b"0123456789")
        aged(shelf.path(name), 50 - age)
    shelf.trim(60, count=3)
    assert [shelf.read(name, 60) is None for name in "abcd"] == [True, False, False, False]
    shelf.trim(60, size_bytes=10)
    assert [shelf.read(name, 60) is None for name in "abcd"] == [True, True, True, False]
    assert (len(shelf), shelf.size_bytes) == (1, 10)


def test_what_a_killed_process_left_goes_in_time(shelf: Shelf):
    left, begun = shelf.temporary("a"), shelf.temporary("a")
    for path in (left, begun):
        path.write_bytes(b"half")
    aged(left, LEFT_SECONDS + 1)
    with shelf.locked():
        pass
    shelf.trim(0.001)
    assert [left.exists(), begun.exists(), len(shelf)] == [False, True, 0]

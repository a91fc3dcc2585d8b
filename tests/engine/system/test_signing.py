"""One key per user, made once, that others can neither read nor have written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from kontext_trt.engine.errors import OptionError
from kontext_trt.engine.system.signing import VARIABLE, find_key, key_path, own_key


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "keys/plans.key"))
    return tmp_path / "keys/plans.key"


def test_it_is_made_when_something_is_signed_and_stays(place: Path) -> None:
    assert find_key() is None
    assert not place.exists(), "looking makes none"
    key = own_key()
    assert own_key() == find_key() == key
    assert place.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in place.parent.iterdir()] == ["plans.key"]
    assert key.secret.hex() not in repr(key)


def test_threads_that_make_it_at_once_have_one() -> None:
    keys = []
    threads = [threading.Thread(target=lambda: keys.append(own_key())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.secret for key in keys}) == 1


def test_a_mac_fits_its_bytes_its_purpose_and_its_key(place: Path) -> None:
    key = own_key()
    mac = key.mac("plan", b"data")
    assert key.verifies("plan", b"data", mac)
    assert not key.verifies("plan", b"Data", mac)
    assert not key.verifies("cache", b"data", mac)
    place.unlink()
    assert not own_key().verifies("plan", b"data", mac)
    assert own_key().name != key.name


@pytest.mark.parametrize("text", ["", "x" * 64, "ab" * 31, "ab" * 33, "ä" * 64])
def test_what_is_no_key_is_said(place: Path, text: str) -> None:
    place.parent.mkdir()
    place.write_text(text)
    place.chmod(0o600)
    for look in (find_key, own_key):
        with pytest.raises(OptionError, match=f"{place} is no key: it must hold 64 hex digits; {VARIABLE} names"):
            look()


def test_a_folder_or_a_pipe_is_no_key(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(place.parent.parent))
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        find_key()


def test_a_key_that_others_can_write_proves_nothing(place: Path) -> None:
    own_key()
    place.chmod(0o620)
    with pytest.raises(OptionError, match="can be written by others, so it proves nothing; chmod 600 it"):
        find_key()


def test_where_none_can_be_made_the_variable_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file/plans.key"))
    with pytest.raises(OptionError, match=f"cannot be read: Not a directory; {VARIABLE} names another file"):
        own_key()
    monkeypatch.setenv(VARIABLE, "/proc/none/plans.key")
    with pytest.raises(OptionError, match=f"cannot be made at /proc/none/plans.key: .*; name a file in {VARIABLE}"):
        own_key()


def test_the_usual_place_is_the_users_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert key_path() == tmp_path / "kontext-trt/plans.key"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert key_path() == tmp_path / "home/.config/kontext-trt/plans.key"

    def nobody(_: object = None) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(OptionError, match=f"name a file in {VARIABLE}"):
        key_path()


def test_a_key_in_a_read_only_folder_is_enough(place: Path) -> None:
    own_key()
    os.chmod(place, 0o400)
    os.chmod(place.parent, 0o500)
    assert own_key() == find_key()

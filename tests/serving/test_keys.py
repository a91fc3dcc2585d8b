"""Keys from a file that nobody else reads, and where a server may listen without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt import OptionError
from kontext_trt.serving.keys import check_exposure, is_loopback, read_keys


def test_keys_stand_one_a_line(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("# of the team\nfirst-key\n\n  second-key  \n")
    file.chmod(0o600)
    assert read_keys(file) == ("first-key", "second-key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int):
    file = tmp_path / "keys"
    file.write_text("key\n")
    file.chmod(mode)
    with pytest.raises(OptionError, match=f"open to others .mode {mode:o}.: chmod 600"):
        read_keys(file)


def test_a_file_without_keys_or_none_is_refused(tmp_path: Path):
    with pytest.raises(OptionError, match="cannot be read as a file of keys"):
        read_keys(tmp_path / "missing")
    file = tmp_path / "keys"
    file.write_text("# none\n")
    file.chmod(0o600)
    with pytest.raises(OptionError, match="holds no key"):
        read_keys(file)


def test_loopback_is_this_machine_alone():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.8.8.8")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))


def test_beyond_this_machine_a_key_is_needed_unless_told():
    with pytest.raises(OptionError, match=r"on 0\.0\.0\.0 everybody who reaches this machine could use it"):
        check_exposure("0.0.0.0", (), open_to_all=False)
    check_exposure("0.0.0.0", ("key",), open_to_all=False)
    check_exposure("0.0.0.0", (), open_to_all=True)
    check_exposure("127.0.0.1", (), open_to_all=False)

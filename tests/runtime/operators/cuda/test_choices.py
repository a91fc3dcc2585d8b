"""What one process has measured all choose, and nothing that another user wrote, or that is not there, counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kontext_trt.engine.system.gpus import Gpu
from kontext_trt.runtime.operators.cuda import choices
from kontext_trt.runtime.operators.cuda.choices import Choices


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    gpus = tuple(Gpu(index=index, name=f"GPU {index // 2}", major=9, minor=0, memory_bytes=1) for index in range(3))
    monkeypatch.setattr(choices, "find_gpus", lambda: (gpus, ""))
    return tmp_path / "cache" / "kontext-trt" / "kernels"


def opened(device: int = 0, library: str = "a library", versions: tuple[object, ...] = (1, "2")) -> Choices:
    on = SimpleNamespace(cuda=SimpleNamespace(device=device), architecture="sm_90")
    return Choices.open(cast(Any, on), library, versions)


def times(**measured: float) -> Any:
    return lambda: {int(number[1:]): time for number, time in measured.items()}


def never() -> dict[int, float]:
    pytest.fail("it was measured before")


def test_the_fastest_is_measured_once_for_all_processes(folder: Path):
    one = opened()
    assert one.fastest((8, True), range(3), times(_0=2.0, _2=1.0)) == 2
    assert one.fastest((8, True), range(3), never) == 2
    assert opened().fastest((8, True), range(3), never) == 2
    assert opened(device=1).fastest((8, True), range(3), never) == 2, "a GPU of the same kind"
    assert len(list(folder.glob("*.json"))) == 1


@pytest.mark.parametrize(
    "other", [{"device": 2}, {"library": "another"}, {"versions": (1, "3")}], ids=["GPU", "library", "version"]
)
def test_another_gpu_library_or_version_is_measured_by_itself(folder: Path, other: dict[str, Any]):
    assert opened().fastest("kind", range(2), times(_0=1.0, _1=2.0)) == 0
    assert opened(**other).fastest("kind", range(2), times(_0=2.0, _1=1.0)) == 1
    assert opened().fastest("kind", range(2), never) == 0


def test_of_two_that_measure_at_once_the_first_counts(folder: Path):
    one, other = opened(), opened()
    assert one.fastest("kind", range(2), times(_0=1.0, _1=2.0)) == 0
    assert other.fastest("kind", range(2), times(_0=2.0, _1=1.0)) == 0
    assert other.fastest("another", range(2), times(_1=1.0)) == 1
    assert opened().fastest("another", range(2), never) == 1
    assert one.fastest("third", range(2), times(_1=1.0)) == 1, "what it has not read yet stays"
    assert opened().fastest("another", range(2), never) == 1


def test_a_number_that_does_not_run_here_is_not_taken(folder: Path):
    one, other = opened(), opened()
    assert one.fastest("kind", range(9), times(_8=1.0)) == 8
    assert opened().fastest("kind", range(2), times(_0=2.0, _1=1.0)) == 1, "there are fewer now"
    assert other.fastest("kind", range(9), times(_0=2.0, _1=1.0)) == 1, "the one that is kept failed"


def test_what_is_not_this_users_or_no_table_is_measured_again(folder: Path, caplog: pytest.LogCaptureFixture):
    assert opened().fastest("kind", range(2), times(_0=1.0)) == 0
    (path,) = folder.glob("*.json")
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    assert opened().fastest("kind", range(2), times(_0=1.0)) == 0
    assert "was not written by this user" in caplog.text
    assert choices._decoded(b"[1]") == choices._decoded(b"") == {}


def test_without_a_place_to_keep_it_all_is_measured_and_that_is_said(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "cache").write_text("a file")
    found = opened()
    assert found.fastest("kind", range(2), times(_1=1.0)) == 1
    assert found.fastest("kind", range(2), never) == 1
    assert "what was measured of a library is not kept" in caplog.text
    caplog.clear()
    monkeypatch.setattr(choices, "find_gpus", lambda: ((), "no driver"))
    assert opened().fastest("kind", range(2), times(_1=1.0)) == 1
    assert len(caplog.records) == 1

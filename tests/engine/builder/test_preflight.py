"""What a build needs against what there is, and where the numbers come from."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compiler_fixtures import ADA

from kontext_trt.engine.builder.preflight import Resources, estimate, lacks, measure
from kontext_trt.engine.flavour import Flavour
from kontext_trt.engine.system import memory

GIB = 1 << 30
TIMED: Any = SimpleNamespace(ahead_of_time=False)


def test_what_suffices_passes(rtx: Flavour) -> None:
    assert estimate(5 * GIB, rtx, None, nvfp4=True).memory // GIB in (13, 14), "more: 12.03 GB for 4.85 were measured"
    needed = estimate(16 * GIB, rtx, None)
    assert needed.gpu == 0
    assert list(lacks(needed, Resources(memory=128 * GIB, disk=64 * GIB, gpu=None))) == []


def test_each_lack_is_told_with_both_numbers() -> None:
    needed = estimate(16 * GIB, TIMED, 2 * GIB)
    told = list(lacks(needed, Resources(memory=8 * GIB, disk=4 * GIB, gpu=12 * GIB)))
    assert [words.partition(":")[0] for words in told] == ["memory", "disk", "GPU memory"]
    assert told[2] == "GPU memory: about 18.0 GiB needed, 12.0 GiB free"


def test_this_machine_is_measured(rtx: Flavour, tmp_path: Path) -> None:
    there = measure(tmp_path / "not" / "yet", rtx, ADA)
    assert there.memory > 0
    assert there.disk > 0
    assert there.gpu is None, "ahead of time no GPU is needed"
    assert measure(tmp_path, TIMED, ADA).gpu == ADA.memory_bytes


def test_anonymous_memory_grows_with_what_a_process_holds() -> None:
    before = memory.anonymous_bytes(os.getpid())
    held = bytearray(os.urandom(1 << 20) * 64)
    assert memory.anonymous_bytes(os.getpid()) - before > 32 << 20
    assert held


def test_a_process_that_has_ended_holds_nothing() -> None:
    assert memory.anonymous_bytes(2**22 + 1) == 0


@pytest.fixture
def kernel_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel tells of a machine that holds still."""
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal:  24000000 kB\nMemAvailable:  8000000 kB\n")
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 5\n")
    return tmp_path


def test_a_control_groups_limit_counts(kernel_files: Path) -> None:
    assert memory.available_bytes() == 8_000_000 * 1024
    (kernel_files / "memory.max").write_text("max\n")
    assert memory.available_bytes() == 8_000_000 * 1024
    (kernel_files / "memory.max").write_text("3000000\n")
    (kernel_files / "memory.current").write_text("2500000\n")
    (kernel_files / "memory.stat").write_text("anon 2000000\ninactive_file 100000\nactive_file 50000\n")
    assert memory.available_bytes() == 3000000 - 2500000 + 150000


def test_kills_for_want_of_memory_are_counted(kernel_files: Path) -> None:
    assert memory.oom_kills() == 5
    (kernel_files / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert memory.oom_kills() == 5 + 2

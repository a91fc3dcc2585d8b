"""The table of devices is measured in processes of their own, and compares pictures with those of one device."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt.benchmarks.bench.devices_table import Table, measure
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.errors import BenchmarkError, BundleError, OptionError
from kontext_trt.runtime.executors.options import ExecutorName


def table(bundle: Path, out: Path, **options: object) -> Table:
    asked = {"devices": (1, 2), "steps": 2, "repeat": 2, "executor": ExecutorName.CPU, **options}
    return Table(bundles=(bundle,), out=out, **asked)  # pyright: ignore[reportArgumentType]


def test_rows_of_devices_and_of_replicas(fused_path: Path, tmp_path: Path):
    one, two, replicas = measure(table(fused_path, tmp_path / "out", replicas=True))
    assert (one["devices"], two["devices"], replicas["replicas"]) == (1, 2, 2)
    for row in (one, two):
        assert isinstance(row["request_s"], float)
        assert row["request_s"] > 0
        assert isinstance(row["pictures_per_minute"], float)
        assert row["pictures_per_minute"] <= 60 / row["request_s"] * 1.5
    assert one["times_one"] == 1
    assert "latents_db" not in one
    assert isinstance(two["latents_db"], float)
    assert two["latents_db"] > 100
    assert isinstance(two["picture_db"], float)
    assert two["picture_db"] > 60
    assert (tmp_path / "out" / "reference.png").is_file()


def test_the_part_of_one_of_more_devices_runs_alone(fused_path: Path, tmp_path: Path):
    one, part = measure(table(fused_path, tmp_path / "out", devices=(1,), predict=(2,)))
    assert (one["devices"], part["part_of"]) == (1, 2)
    assert isinstance(part["step_ms"], float)
    assert isinstance(part["request_s"], float)
    assert part["request_s"] * 1e3 > 2 * part["step_ms"] > 0
    with pytest.raises(OptionError, match="cannot be shared by 5 devices"):
        measure(table(fused_path, tmp_path / "out", devices=(1,), predict=(5,)))


def test_a_bundle_that_cannot_be_shared_is_refused_before_anything_runs(bundle: Bundle, tmp_path: Path):
    with pytest.raises(BundleError, match="--operators fused"):
        measure(table(bundle.path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_process_that_fails_is_told(fused_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KONTEXT_TRT_BENCHMARK", "1")  # a parent that it has not
    with pytest.raises(BenchmarkError, match="a measured process ended with 1"):
        measure(table(fused_path, tmp_path / "out"))

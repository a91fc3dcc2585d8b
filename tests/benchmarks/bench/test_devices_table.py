"""The table of devices is measured in processes of their own, and compares pictures with those of one device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import has_ended, wait_until

from kontext_trt.benchmarks.bench import devices_table
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
    monkeypatch.setattr(devices_table, "_CHILD", "no_such_module")
    with pytest.raises(BenchmarkError, match="a measured process ended with 1"):
        measure(table(fused_path, tmp_path / "out"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_it_runs_ends_with_it(fused_path: Path, tmp_path: Path, number: signal.Signals):
    """Interrupted, it says nothing, as the command line does."""
    (tmp_path / "the_child.py").write_text(
        "import os, pathlib, time\n"
        "from kontext_trt.benchmarks.program import run_main\n"
        "def main():\n"
        "    pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "run_main(main)"
    )
    code = (
        "from kontext_trt.benchmarks.bench import devices_table\n"
        "from kontext_trt.benchmarks.program import run_main\n"
        "devices_table._CHILD = 'the_child'\n"
        "run_main(devices_table.main)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    given = [str(fused_path), "--out", "out", "--executor", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *given],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    ) as benchmark:
        pid = tmp_path / "pid"
        child = int(wait_until(lambda: pid.exists() and pid.read_text(), "the child starts"))
        benchmark.send_signal(number)
        _, said = benchmark.communicate(timeout=30)
    wait_until(lambda: has_ended(child), "the child ends with the table", 30)
    assert (benchmark.returncode, said) == (130 if number == signal.SIGINT else -number, "")

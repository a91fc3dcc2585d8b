"""What a folder takes on the disk, and a child in memory."""

from pathlib import Path

from kontext_trt.benchmarks.costs.measure import disk_bytes, measure_module


def test_hard_links_count_once(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/file").write_bytes(bytes(100_000))
    (tmp_path / "b/link").hardlink_to(tmp_path / "a/file")
    (tmp_path / "b/own").write_bytes(bytes(50_000))
    assert 50_000 <= disk_bytes(tmp_path / "b", besides=tmp_path / "a") < 100_000


def test_a_childs_memory_and_report_are_seen(tmp_path: Path, monkeypatch):
    (tmp_path / "child.py").write_text(
        "import json, time\nheld = bytearray(b'x') * 200_000_000\ntime.sleep(2)\nprint(json.dumps({'held': len(held)}))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cost = measure_module("child")
    assert cost.report == {"held": 200_000_000}
    assert 200e6 < cost.peak_anonymous_bytes < 300e6
    assert cost.seconds > 2
    assert 0.02 < cost.processor_seconds < 2, "sleeping is no work"

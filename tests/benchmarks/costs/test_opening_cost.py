"""Timing and measuring children: one that fails is quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from kontext_trt.benchmarks.bench.child import ChildError
from kontext_trt.benchmarks.costs.measure import measure_module
from kontext_trt.benchmarks.costs.opening_cost import time_it


def test_a_child_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(ChildError, match="the measured process ended with 3: no such picture"):
        time_it("import sys; print('no such picture', file=sys.stderr); sys.exit(3)", repeat=1)
    (tmp_path / "child.py").write_text("raise SystemExit(4)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ChildError, match="child ended with 4"):
        measure_module("child")

"""What a benchmark records: lines that come back as they were, and spreads."""

from __future__ import annotations

import pytest
from made_runs import made_run

from kontext_trt.benchmarks.bench.records import Record, Spread, Unmeasured, decode_lines, encode_lines


def test_lines_come_back_as_they_were():
    records: list[Record] = [made_run("kontext-trt", 1.5), Unmeasured(engine="x", reason='"quoted"\nlines')]
    text = encode_lines(records)
    assert text.count(b"\n") == 2
    assert decode_lines(text) == records


def test_percentiles():
    made = Spread.of([float(value) for value in range(101)])
    assert (made.p50, made.p95, made.p99, made.least, made.count) == (50, 95, 99, 0, 101)
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])

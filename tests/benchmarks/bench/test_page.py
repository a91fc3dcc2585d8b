"""A report's page."""

from __future__ import annotations

from made_runs import made_run

from kontext_trt.benchmarks.bench.page import render
from kontext_trt.benchmarks.bench.records import Failure, Record


def test_page_escapes_what_it_quotes():
    records: list[Record] = [made_run("<b>", 1.0), Failure(engine="x", reason="a < b & c")]
    page = render(records, None)
    assert "<b>" not in page
    assert "a &lt; b &amp; c" in page

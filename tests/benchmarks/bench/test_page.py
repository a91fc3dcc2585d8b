"""A report's page."""

from __future__ import annotations

import base64
import html

from made_runs import made_run

from kontext_trt.benchmarks.bench.chart import draw
from kontext_trt.benchmarks.bench.page import render
from kontext_trt.benchmarks.bench.records import EngineRun, Record, Unmeasured
from kontext_trt.benchmarks.bench.sections import sections
from kontext_trt.benchmarks.figures import png


def test_page_escapes_what_it_quotes():
    records: list[Record] = [made_run("<b>", 1.0), Unmeasured(engine="x", reason="a < b & c")]
    page = render(records, None)
    assert "<b>" not in page
    assert "a &lt; b &amp; c" in page


def test_page_has_the_chart_and_every_figure_of_the_tables():
    records: list[Record] = [made_run("kontext-trt", 1234.5), Unmeasured(engine="x", reason="is not installed")]
    chart = png(draw([record for record in records if isinstance(record, EngineRun)]))
    page = render(records, chart)
    assert base64.b64encode(chart).decode() in page
    for section in sections(records):
        for words in (section.title, section.note, *section.columns, *(cell for row in section.rows for cell in row)):
            assert html.escape(words) in page
    assert "<img" not in render(records, None)

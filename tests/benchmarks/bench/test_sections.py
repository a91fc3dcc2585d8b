"""What a benchmark's report shows, and what it refuses to compare."""

from __future__ import annotations

import msgspec
from made_runs import made_run

from kontext_trt.benchmarks.bench.chart import draw
from kontext_trt.benchmarks.bench.page import render
from kontext_trt.benchmarks.bench.records import Agreement, Record, Unmeasured
from kontext_trt.benchmarks.bench.sections import comparable, sections
from kontext_trt.benchmarks.figures import png


def test_no_speed_is_quoted_of_another_picture():
    """Neither in the tables nor in the chart."""
    ours, near, far = made_run("kontext-trt", 100.0), made_run("near", 150.0), made_run("far", 57.0)
    agreements = [
        Agreement(one="kontext-trt", other="near", psnr_db=44.0, snr_db=20.0, agree=True),
        Agreement(one="kontext-trt", other="far", psnr_db=12.0, snr_db=-3.0, agree=False),
    ]
    records: list[Record] = [ours, near, far, *agreements]
    kept, words = comparable(records)
    assert [run.engine for run in kept] == ["kontext-trt", "near"]
    assert words == ["far: its picture is not kontext-trt's (PSNR 12.0 dB, SNR -3.0 dB), so its times mean nothing"]
    times = sections(records)[0]
    assert times.columns == ("", "kontext-trt", "near")
    assert "a step of kontext-trt takes 0.67 times near's" in times.note
    assert words[0] in times.note
    assert "57.00" not in render(records, png(draw(kept)))
    assert [label.get_text() for label in draw(kept).axes[0].get_yticklabels()] == ["kontext-trt", "near"]


def test_other_precisions_are_not_compared():
    records: list[Record] = [
        msgspec.structs.replace(made_run("kontext-trt", 1.0), precision="fp32"),
        made_run("half", 2.0),
    ]
    times = sections(records)[0]
    assert "half computes in bf16, kontext-trt in fp32: not compared" in times.note
    assert "times half's" not in times.note
    assert times.rows[1] == ("in", "fp32", "bf16")


def test_what_an_engine_notes_is_said():
    run = msgspec.structs.replace(made_run("compiled", 1.0), notes=("the decoder is not compiled: no room",))
    assert "compiled: the decoder is not compiled: no room" in sections([run])[0].note


def test_failures_are_said():
    records: list[Record] = [made_run("kontext-trt", 1.0), Unmeasured(engine="torchao", reason="is not installed")]
    assert "torchao was not measured: is not installed" in sections(records)[0].note

"""Two bundles' answers beside each other, from the same noise."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_folders import QuickKontext, kontext_bench
from PIL import Image

from kontext_trt import BenchmarkError
from kontext_trt.benchmarks.quality.metrics import psnr_db, ssim
from kontext_trt.benchmarks.quality.public.against import Pair, compare_answers, worst
from kontext_trt.benchmarks.quality.public.layouts import Item, read_bench
from kontext_trt.benchmarks.quality.public.perceptual import Lpips
from kontext_trt.benchmarks.quality.public.running import Run, run_bench
from kontext_trt.benchmarks.quality.public.summary import rows


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    return read_bench(kontext_bench(tmp_path / "bench", 6)).items


@pytest.fixture
def runs(items: tuple[Item, ...], tmp_path: Path) -> tuple[Run, Run]:
    """The second's values are all three more."""
    one = run_bench(QuickKontext().opened, items, tmp_path / "one")
    return one, run_bench(QuickKontext(fingerprint="cd" * 32, offset=3).opened, items, tmp_path / "other")


class Halves(Lpips):
    """Counts what it measures, and finds a half everywhere."""

    def __init__(self) -> None:
        self.measured = 0

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        self.measured += 1
        return 0.5


def compare(runs: tuple[Run, Run], lpips: Lpips | None = None) -> dict[str, Pair]:
    one, other = runs
    return compare_answers(one.folder, one.answers, other.folder, other.answers, lpips=lpips)


def test_distances_are_of_the_pictures(runs: tuple[Run, Run]):
    pairs = compare(runs)
    assert list(pairs) == list(runs[0].answers)
    for key, pair in pairs.items():
        pixels = [np.asarray(Image.open(run.folder / run.answers[key].file)) for run in runs]
        assert pair.squared_error == 9
        assert pair.psnr_db == psnr_db(*pixels) == pytest.approx(10 * math.log10(255**2 / 9))
        assert pair.ssim == ssim(*pixels) < 1
        assert pair.lpips is None


def test_what_was_measured_is_not_measured_again(runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch):
    first, file = compare(runs), runs[0].folder / "comparison.jsonl"
    written = file.read_bytes()
    monkeypatch.setattr("kontext_trt.benchmarks.quality.public.against._pixels", None)
    assert compare(runs) == first
    assert file.read_bytes() == written


def test_lpips_is_added_to_what_was_measured_without(runs: tuple[Run, Run]):
    compare(runs)
    network = Halves()
    for _ in range(2):
        assert {pair.lpips for pair in compare(runs, network).values()} == {0.5}
    assert network.measured == 6
    assert {pair.lpips for pair in compare(runs).values()} == {0.5}, "it is kept"


def test_equal_answers_are_infinitely_near(items: tuple[Item, ...], runs: tuple[Run, Run]):
    pairs = compare((runs[0], runs[0]))
    assert {pair.psnr_db for pair in pairs.values()} == {math.inf}
    assert {pair.ssim for pair in pairs.values()} == {1}
    (every, *_) = rows(items, runs[0], pairs, {})
    assert (every.compared, every.equal, every.psnr_db) == (6, 6, math.inf)


def test_rows_are_means_per_category(items: tuple[Item, ...], runs: tuple[Run, Run]):
    pairs = compare(runs)
    pairs["0000"] = replace(pairs["0000"], squared_error=99.0, ssim=0.5, lpips=1.0)
    pairs["0005"] = replace(pairs["0005"], squared_error=1.0, ssim=0.7, lpips=0.0)
    every, first, *others = rows(items, runs[0], pairs, {})
    assert (every.name, every.items, every.compared, every.lpips) == ("all", 6, 6, None)
    assert (first.name, first.items, first.equal) == ("Character Reference", 2, 0)
    assert first.psnr_db == pytest.approx(10 * math.log10(255**2 / 50))
    assert first.median_psnr_db == pytest.approx((pairs["0000"].psnr_db + pairs["0005"].psnr_db) / 2)
    assert (first.ssim, first.lpips) == (pytest.approx(0.6), 0.5)
    assert [row.items for row in others] == [1, 1, 1, 1]
    assert [pair.key for pair in worst(pairs, 2)] == ["0000", "0001"]


def test_an_item_that_one_of_them_lacks_is_not_compared(items: tuple[Item, ...], runs: tuple[Run, Run]):
    del runs[1].answers["0003"]  # pyright: ignore[reportIndexIssue]
    assert "0003" not in compare(runs)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("seed", 1, r"another seed for '0001' \(\d+ here, 1 there\)"),
        ("prompt_sha256", "", "another instruction for '0001'; answers are compared to the same question"),
        ("reference_sha256", "", "another picture for '0001'"),
        ("size", (16, 16), r"another size for '0001' \(\(32, 16\) here, \(16, 16\) there\)"),
    ],
)
def test_other_questions_are_not_compared(runs: tuple[Run, Run], field: str, value: object, words: str):
    one, other = runs
    changed = {**other.answers, "0001": replace(other.answers["0001"], **{field: value})}
    with pytest.raises(BenchmarkError, match=words):
        compare((one, replace(other, answers=changed)))
    assert not (one.folder / "comparison.jsonl").exists()


def test_a_picture_that_has_gone(runs: tuple[Run, Run]):
    (runs[1].folder / runs[1].answers["0002"].file).unlink()
    with pytest.raises(BenchmarkError, match=r"0002\.png cannot be read: .*make the answers of that folder again"):
        compare(runs)
    assert len((runs[0].folder / "comparison.jsonl").read_text().splitlines()) == 2
    assert json.loads((runs[0].folder / "comparison.jsonl").read_text().splitlines()[0])["key"] == "0000"

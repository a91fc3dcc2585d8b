"""Answering a benchmark: what is written, going on after an end, and refusing to mix runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_folders import QuickKontext, kontext_bench, line, write_lines
from PIL import Image

from kontext_trt import BenchmarkError, BundleError, ImageError, Kontext, RequestError, Sampling
from kontext_trt.benchmarks.quality.public.layouts import Item, read_bench
from kontext_trt.benchmarks.quality.public.records import Answer, Lines, held, read_answers
from kontext_trt.benchmarks.quality.public.running import item_seed, run_bench
from kontext_trt.engine.system.files import sha256_file


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    return read_bench(kontext_bench(tmp_path / "bench", 8)).items


def lines_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def without_time(folder: Path) -> list[dict[str, object]]:
    return [{**line, "ms": 0} for line in lines_of(folder)]


def tree(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): sha256_file(file) for file in sorted(folder.rglob("*.png"))}


def test_answers_of_the_tiny_bundle(kontext: Kontext, items: tuple[Item, ...], tmp_path: Path):
    out = tmp_path / "out"
    run = run_bench(kontext, items[:2], out, sampling=Sampling(steps=2, size=(48, 32), guidance=3.5), seed=7)
    assert list(run.answers) == ["0000", "0001"]
    assert run.made == 2
    first, second = lines_of(out)
    assert first["file"] == "Character-Reference/0000.png"
    assert first["seed"] == item_seed(7, "0000") != second["seed"]
    assert first["bundle"] == kontext.bundle.fingerprint
    assert first["size"] == [48, 32]
    assert first["settings"] == {
        "seed": 7, "steps": 2, "guidance": 3.5, "solver": "euler", "sigmas": None, "step_mask": None, "size": [48, 32]
    }  # fmt: skip
    with Image.open(out / "Character-Reference/0000.png") as image:
        wanted = kontext.edit(items[0].picture, items[0].instruction, steps=2, size=(48, 32), guidance=3.5,
                              seed=item_seed(7, "0000")).image  # fmt: skip
        assert np.array_equal(np.asarray(image), np.asarray(wanted))


def test_seeds_depend_on_the_key_alone():
    assert item_seed(0, "0001") == 919749760
    assert len({item_seed(seed, key) for seed in range(3) for key in "abc"}) == 9


def test_an_end_in_the_middle_changes_nothing(items: tuple[Item, ...], tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_bench(QuickKontext().opened, items, whole)

    def interrupt(count: int) -> None:
        if count == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(QuickKontext(after=interrupt).opened, items, cut)
    assert [line["key"] for line in lines_of(cut)] == ["0000", "0001", "0002"]
    rest = QuickKontext()
    run = run_bench(rest.opened, items, cut)
    assert len(rest.requests) == run.made == 5
    assert without_time(cut) == without_time(whole)
    assert tree(cut) == tree(whole)
    assert list(run.answers) == [item.key for item in items]


def test_nothing_is_loaded_when_all_is_there(items: tuple[Item, ...], tmp_path: Path):
    run_bench(QuickKontext().opened, items, tmp_path / "out")
    again = QuickKontext()
    assert run_bench(again.opened, items, tmp_path / "out").made == again.loaded == 0


def test_what_of_a_line_was_left_is_cut_off(items: tuple[Item, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_bench(QuickKontext().opened, items, whole)
    shutil.copytree(whole, cut)
    data = (whole / "results.jsonl").read_bytes()
    (cut / "results.jsonl").write_bytes(data[:-100])
    assert run_bench(QuickKontext().opened, items, cut).made == 1
    assert "the last line was not finished, and is removed" in caplog.text
    assert without_time(cut) == without_time(whole)


def test_shares_make_the_whole(items: tuple[Item, ...], tmp_path: Path):
    run_bench(QuickKontext().opened, items, tmp_path / "whole")
    for share in (0, 1):
        run_bench(QuickKontext().opened, items[share::2], tmp_path / f"share-{share}")
    joined = [line for share in (0, 1) for line in without_time(tmp_path / f"share-{share}")]
    assert sorted(joined, key=str) == sorted(without_time(tmp_path / "whole"), key=str)
    assert tree(tmp_path / "share-0") | tree(tmp_path / "share-1") == tree(tmp_path / "whole")


def test_pictures_that_are_gone_or_altered_are_made_again(
    items: tuple[Item, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = tmp_path / "out"
    made = run_bench(QuickKontext().opened, items, out)
    (out / made.answers["0001"].file).unlink()
    (out / made.answers["0005"].file).write_bytes(b"no picture")
    again = QuickKontext()
    assert run_bench(again.opened, items, out).answers == made.answers
    assert [request.prompts[0] for request in again.requests] == ["make it number 1", "make it number 5"]
    assert "is missing or altered, and is made again" in caplog.text


def test_items_that_fail_are_recorded_and_tried_again(items: tuple[Item, ...], tmp_path: Path):
    out = tmp_path / "out"
    errors = {"make it number 2": ImageError("it is cut short"), "make it number 3": RequestError("no")}
    run = run_bench(QuickKontext(broken=dict(errors)).opened, items, out)
    assert run.made == 6
    assert {key: answer.error for key, answer in run.failures.items()} == {
        "0002": "ImageError: it is cut short",
        "0003": "RequestError: no",
    }
    assert "0002" not in read_answers(out)
    again = QuickKontext()
    run = run_bench(again.opened, items, out)
    assert [request.prompts[0] for request in again.requests] == list(errors)
    assert (run.made, len(run.answers), run.failures) == (2, 8, {})
    assert list(run.answers) == [item.key for item in items]


def test_a_picture_that_is_none_fails_alone(kontext: Kontext, items: tuple[Item, ...], tmp_path: Path):
    items[0].picture.write_bytes(b"no picture")
    run = run_bench(kontext, items[:2], tmp_path / "out", sampling=Sampling(steps=1, size=(32, 32)))
    assert list(run.answers) == ["0001"]
    assert "ImageError: " in str(run.failures["0000"].error)


def test_what_fails_alike_from_the_beginning_ends_the_run(items: tuple[Item, ...], tmp_path: Path):
    broken = QuickKontext(broken={item.instruction: RequestError("a mask of 3 for 4 steps") for item in items})
    with pytest.raises(BenchmarkError, match="the first 3 items failed in the same way: RequestError: a mask of 3"):
        run_bench(broken.opened, items, tmp_path / "out")
    assert len(broken.requests) == 3


def test_what_concerns_the_bundle_ends_the_run(items: tuple[Item, ...], tmp_path: Path):
    broken = QuickKontext(broken={"make it number 1": BundleError("there is no such feature")})
    with pytest.raises(BundleError, match="no such feature"):
        run_bench(broken.opened, items, tmp_path / "out")
    assert len(lines_of(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("other", "sampling", "seed", "words"),
    [
        (QuickKontext(fingerprint="cd" * 32), Sampling(), 0, "bundle abababababab instead of cdcdcdcdcdcd"),
        (QuickKontext(executor_name="slow"), Sampling(), 0, "executor quick instead of slow"),
        (QuickKontext(), Sampling(steps=14), 0, "steps 28 instead of 14;"),
        (QuickKontext(), Sampling(), 1, "seed 0 instead of 1"),
        (QuickKontext(), Sampling(solver="ab2", guidance=3), 0, "guidance 2.5 instead of 3.0, solver euler instead of"),
        (QuickKontext(), Sampling(sigmas=[1, 0.5]), 0, "steps 28 instead of 2, sigmas None instead of"),
        (QuickKontext(), Sampling(steps=28, step_mask=[1] * 28), 0, "step_mask None instead of"),
        (QuickKontext(), Sampling(size=(32, 32)), 0, "size None instead of"),
    ],
)
def test_runs_are_not_mixed(
    items: tuple[Item, ...], tmp_path: Path, other: QuickKontext, sampling: Sampling, seed: int, words: str
):
    run_bench(QuickKontext().opened, items[:1], tmp_path / "out")
    with pytest.raises(BenchmarkError, match=f"out has answers with .*{words}"):
        run_bench(other.opened, items, tmp_path / "out", sampling=sampling, seed=seed)


def test_questions_are_not_mixed(items: tuple[Item, ...], tmp_path: Path):
    out, bench = tmp_path / "out", tmp_path / "bench"
    run_bench(QuickKontext().opened, items[:3], out)
    for changed, what in ((line(1, instruction="other"), "instruction"), (line(1, category="other"), "category")):
        other = read_bench(write_lines(bench, [line(0), changed, line(2)])).items
        with pytest.raises(BenchmarkError, match=f"for '0001' whose {what} is another one than the benchmark's now"):
            run_bench(QuickKontext().opened, other, out)
    shutil.copy(items[3].picture, items[1].picture)
    with pytest.raises(BenchmarkError, match="for '0001' whose picture is another one"):
        run_bench(QuickKontext().opened, items[:3], out)


def test_one_process_writes(items: tuple[Item, ...], tmp_path: Path):
    with (
        held(tmp_path / "out"),
        pytest.raises(BenchmarkError, match=r"another process writes into .*out; wait for it, or take another --out"),
    ):
        run_bench(QuickKontext().opened, items, tmp_path / "out")


def test_lines_of_somebody_else_are_refused(items: tuple[Item, ...], tmp_path: Path):
    (tmp_path / "results.jsonl").write_text('{"key": "a"}\n')
    with pytest.raises(BenchmarkError, match=r"results\.jsonl, line 1 is not as this version writes it"):
        run_bench(QuickKontext().opened, items, tmp_path)


def test_a_later_line_counts(items: tuple[Item, ...], tmp_path: Path):
    run = run_bench(QuickKontext().opened, items[:1], tmp_path)
    answer = replace(run.answers["0000"], ms=1.0)
    with Lines(tmp_path / "results.jsonl", Answer).appending() as log:
        log.add(answer)
    assert read_answers(tmp_path) == {"0000": answer}

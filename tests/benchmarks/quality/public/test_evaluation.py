"""The whole of `evaluate --bench`: folders of results, what they are held against, the page, the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bench_folders import CATEGORIES, QuickKontext, kontext_bench, line, write_lines
from browser import shoot
from command_line import environment, run
from judge_server import Asked, JudgeServer, Reply, judging
from processes import wait_until

from kontext_trt import BenchmarkError, Bundle, ImageError, Kontext, MissingDependencyError
from kontext_trt.benchmarks.quality.public.choice import Choice
from kontext_trt.benchmarks.quality.public.evaluation import PublicOptions, evaluate_public
from kontext_trt.benchmarks.quality.public.judge import JudgeOptions
from kontext_trt.engine.system.files import sha256_file

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ONE, OTHER = Path("one"), Path("other")
Opener = Callable[[Path], AbstractContextManager[Kontext]]


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as opened:
        yield opened


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return kontext_bench(tmp_path / "bench", 6)


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    """Two bundles that have a manifest and answer at once; the second's answers are brighter."""
    kontexts = {ONE: QuickKontext(), OTHER: QuickKontext(fingerprint="cd" * 32, offset=3)}
    for name in kontexts:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    return lambda path: kontexts[Path(path.name)]


def page_data(folder: Path) -> Any:
    found = re.search(r"^const data = (.*);$", (folder / "index.html").read_text(), re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def judge(server: JudgeServer) -> JudgeOptions:
    return JudgeOptions(url=server.url, model="m", wait_seconds=0.01)


def test_two_bundles_and_a_judge(bench: Path, opener: Opener, server: JudgeServer, tmp_path: Path):
    out = tmp_path / "out"
    options = PublicOptions(bench=bench, out=out, against=tmp_path / OTHER, judge=judge(server))
    summary, page = evaluate_public(tmp_path / ONE, options, opener)
    assert page == out / "index.html"
    assert [row.name for row in summary.rows] == ["all", *CATEGORIES]
    assert summary.rows[0].psnr_db == pytest.approx(38.588, abs=1e-3)
    assert summary.rows[0].overall == pytest.approx((7 * 8.5) ** 0.5)
    assert [row.judged for row in summary.other_rows] == [6, 2, 1, 1, 1, 1]
    assert len(server.asked) == 12
    document = json.loads((out / "summary.json").read_text())
    assert document["against"]["bundle"] == "cd" * 32
    assert document["rows"][0]["answered"] == 6
    assert len(document["worst"]) == 6
    data = page_data(out)
    first = data["items"][0]
    assert data["bundle"] == "abababababab, 28 steps"
    for name in ("reference", "answer", "other"):
        assert (out / first[name]).is_file()
    assert first["reference"] == "references/Character-Reference/0000.png"
    assert first["other"] == "against/Character-Reference/0000.png"
    assert first["marks"]["overall"] == first["otherMarks"]["overall"] == pytest.approx(7.714, abs=1e-3)
    again, _ = evaluate_public(tmp_path / ONE, options, opener)
    assert again.rows == summary.rows
    assert len(server.asked) == 12, "all of it was there"


def test_against_a_folder_of_results(bench: Path, opener: Opener, server: JudgeServer, tmp_path: Path):
    earlier = PublicOptions(bench=bench, out=tmp_path / "earlier", judge=judge(server), choice=Choice(count=4))
    evaluate_public(tmp_path / OTHER, earlier, opener)
    before = {file: file.stat().st_mtime_ns for file in earlier.out.rglob("*")}
    options = PublicOptions(bench=bench, out=tmp_path / "out", against=earlier.out, judge=judge(server))
    summary, _ = evaluate_public(tmp_path / ONE, options, opener)
    assert summary.rows[0].compared == 4
    assert summary.other_rows[0].judged == 4, "what the folder has"
    assert page_data(options.out)["items"][0]["other"] == "../earlier/Character-Reference/0000.png"
    assert {file: file.stat().st_mtime_ns for file in earlier.out.rglob("*")} == before, "it is only read"


def test_what_nothing_can_be_held_against(bench: Path, opener: Opener, tmp_path: Path):
    def against(folder: Path) -> None:
        evaluate_public(tmp_path / ONE, PublicOptions(bench=bench, out=tmp_path / "out", against=folder), opener)

    with pytest.raises(BenchmarkError, match=r"--against is a bundle or a folder with results\.jsonl; .*nope is nei"):
        against(tmp_path / "nope")
    other = kontext_bench(tmp_path / "other-bench", 1)
    write_lines(other, [line(0, key="x")])
    evaluate_public(tmp_path / OTHER, PublicOptions(bench=other, out=tmp_path / "x"), opener)
    with pytest.raises(BenchmarkError, match="x has no answer to any of the 6 items of"):
        against(tmp_path / "x")
    assert not (tmp_path / "out").exists(), "nothing is made first"


def test_answers_need_a_folder(bench: Path, opener: Opener, tmp_path: Path):
    (tmp_path / "out").touch()
    with pytest.raises(BenchmarkError, match="out is a file; answers need a folder: name another with --out"):
        evaluate_public(tmp_path / ONE, PublicOptions(bench=bench, out=tmp_path / "out"), opener)


def test_failures_are_in_the_summary_and_on_the_page(bench: Path, tmp_path: Path):
    broken = QuickKontext(broken={"make it number 4": ImageError("<b>cut</b> short")})
    summary, _ = evaluate_public(ONE, PublicOptions(bench=bench, out=tmp_path / "out"), lambda _: broken)
    assert (summary.rows[0].items, summary.rows[0].answered) == (6, 5)
    assert summary.rows[-1].median_ms is None
    failed = page_data(tmp_path / "out")["items"][4]
    assert (failed["error"], failed["answer"], failed["ms"]) == ("ImageError: <b>cut</b> short", None, None)


def test_lpips_needs_its_packages(bench: Path, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kontext_trt.engine.system.packages.find_spec", lambda name: None)
    options = PublicOptions(bench=bench, out=tmp_path / "out", against=tmp_path / OTHER, lpips=True)
    with pytest.raises(MissingDependencyError, match=r"LPIPS needs torch, torchvision, lpips; .*kontext-trt\[lpips\]"):
        evaluate_public(tmp_path / ONE, options, opener)
    assert not (tmp_path / "out").exists()


def test_the_command(bundle_path: Path, bench: Path, tmp_path: Path):
    """Items of two categories, one of them without a picture that can be read; then all again, on the JSON road."""
    out = tmp_path / "out"
    good = (bench / "images/0001.png").read_bytes()
    (bench / "images/0001.png").write_bytes(b"none")
    chosen = ("--categories", "Style Reference, Text Editing", "--count", 2)
    asked = ("evaluate", bundle_path, "--bench", bench, "--out", out, *chosen, "--steps", 1, "--size", "32x32")
    done = run(*asked, code=1)
    assert re.search(r"all +2 +1 +\d", done.stdout)
    assert "0001: ImageError: " in done.stderr
    assert "1 item failed; the same command tries what failed again" in done.stderr
    (bench / "images/0001.png").write_bytes(good)
    document = json.loads(run(*asked, "--json").stdout)
    assert [row["answered"] for row in document["rows"]] == [2, 1, 1]
    assert document["settings"]["steps"] == 1
    refused = run(*asked, "--solver", "ab2", code=1)
    assert "has answers with solver euler instead of ab2; ask for the same, or take another --out" in refused.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--lpips",), "--lpips: EditBench takes none of it; name a public benchmark with --bench"),
        (("--solver", "ab2", "--judge-url", "x"), "--solver, --judge-url: EditBench takes none of it"),
        (("--bench", "x", "--lpips"), "--lpips is a distance from other answers; name them with --against"),
        (("--bench", "x", "--sessions", "1"), "--sessions and --turns are of EditBench"),
        (("--bench", "x", "--judge-url", "http://h/v1"), "a judge is named by --judge-url and --judge-model; give"),
        (("--bench", "x", "--judge-model", "m"), "a judge is named by --judge-url and --judge-model; give both"),
        (("--bench", "x", "--judge-url", "h", "--judge-model", "m"), "--judge-url is the base of an API"),
        (("--bench", "x", "--judge-url", "http://h/v1", "--judge-model", "m", "--judge-key", "NO_SUCH"),
         "--judge-key: the environment variable NO_SUCH is not set"),
        (("--bench", "x", "--shard", "2"), "--shard is K/N"),
        (("--bench", "no-such"), "no-such is no folder of a benchmark"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing(bundle_path: Path, options: tuple[str, ...], words: str, tmp_path: Path):
    assert words in run("evaluate", bundle_path, *options, "--out", tmp_path / "out", code=1).stderr
    assert not (tmp_path / "out").exists()


def results(folder: Path) -> list[dict[str, Any]]:
    """What is recorded, without the milliseconds."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    return [{**json.loads(one), "ms": 0} for one in lines]


def pictures(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): sha256_file(file) for file in folder.rglob("*.png")}


def wait_for_lines(file: Path, count: int) -> None:
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") >= count, f"{count} lines in {file}")


def untimed(folder: Path) -> Any:
    rows = json.loads((folder / "summary.json").read_text())
    for row in (*rows["rows"], *rows["against_rows"]):
        row["median_ms"] = 0
    return {**rows, "judge_faults": 0}


@pytest.mark.check  # 30 items by two bundles, twice
def test_thirty_items_killed_and_continued(
    bundle_path: Path, tiny_quantized: Callable[[str], Bundle], server: JudgeServer, tmp_path: Path
):
    """A bundle beside its FP8, and a judge: a run that is killed three times ends as one that is not."""
    bench = kontext_bench(tmp_path / "bench", 30)

    def mark(asked: Asked) -> Reply:
        number = int(re.findall(r"make it number (\d+)", asked.text)[0])
        content = json.dumps({"semantic_consistency": number / 3, "perceptual_quality": 9})
        return Reply(content=content, wait=patience)  # so long that a run to be ended has not ended by itself

    patience, server.reply = 0.0, mark
    asked = [
        "evaluate", tiny_quantized("fp8").path, "--bench", bench, "--against", bundle_path, "--steps", 2, "--solver",
        "ab2", "--size", "48x32", "--judge-url", server.url, "--judge-model", "m",
    ]  # fmt: skip
    run(*asked, "--out", tmp_path / "whole")
    cut, patience = tmp_path / "cut", 0.5
    for place, lines, number in (
        (cut / "results.jsonl", 7, signal.SIGKILL),
        (cut / "results.jsonl", 16, signal.SIGINT),
        (cut / "against/results.jsonl", 9, signal.SIGKILL),
    ):
        command = [sys.executable, "-m", "kontext_trt", *map(str, asked), "--out", str(cut)]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        wait_for_lines(place, lines)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode != 0
        if number == signal.SIGINT:
            assert "what was recorded stays in" in said
    assert not (cut / "summary.json").exists()
    patience = 0.0
    run(*asked, "--out", cut)
    assert len(results(cut)) == len(results(cut / "against")) == 30
    assert results(cut) == results(tmp_path / "whole")
    assert results(cut / "against") == results(tmp_path / "whole/against")
    assert pictures(cut) == pictures(tmp_path / "whole")
    assert len(pictures(cut)) == 90
    assert untimed(cut) == untimed(tmp_path / "whole")
    whole = untimed(cut)
    assert 15 < whole["rows"][0]["psnr_db"] < 80
    assert whole["rows"][0]["judged"] == whole["against_rows"][0]["judged"] == 30


@pytest.mark.check
def test_the_page_in_a_browser(browser: Browser, bench: Path, opener: Opener, server: JudgeServer, tmp_path: Path):
    """From the disk, with no server; words of the benchmark are words, and pictures are fetched when they are seen."""
    out = tmp_path / "out"
    lines = [line(number) for number in range(6)]
    lines[5] = line(5, instruction="</script><script>document.title = 'no'</script><b>bold</b>")
    options = PublicOptions(bench=write_lines(bench, lines), out=out, against=tmp_path / OTHER, judge=judge(server))
    server.reply = lambda asked: Reply(
        content=json.dumps({"semantic_consistency": 2 if "number 3" in asked.text else 8, "perceptual_quality": 8})
    )
    evaluate_public(tmp_path / ONE, options, opener)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    page.on("console", lambda one: said.append(one.text))
    page.on("pageerror", lambda one: said.append(str(one)))
    page.goto((out / "index.html").as_uri())
    assert page.locator("article").count() == 6
    assert page.title() == "kontext-trt evaluate"
    assert page.locator("article h2").nth(5).inner_text() == lines[5]["instruction"]
    assert page.locator("img[loading=lazy]").count() == 18
    assert page.locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    page.select_option("#category", "Character Reference")
    assert page.locator("article").count() == 2
    assert page.locator("#count").inner_text() == "2 of 6"
    page.select_option("#category", "")
    page.select_option("#order", "lowest overall mark")
    assert "make it number 3" in page.locator("article h2").first.inner_text()
    page.fill("#words", "NUMBER 2")
    assert page.locator("article").count() == 1
    assert "PSNR 38.6 dB" in page.locator("article").inner_text()
    shoot(page, "evaluation")
    page.close()
    assert said == []

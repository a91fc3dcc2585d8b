"""Judging a folder of answers: several at once, kept, and gone on with."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench_folders import QuickKontext, kontext_bench
from judge_server import Asked, JudgeServer, Reply, judging

from kontext_trt import BenchmarkError
from kontext_trt.benchmarks.quality.public import judging as judging_module
from kontext_trt.benchmarks.quality.public.judge import JudgeOptions
from kontext_trt.benchmarks.quality.public.judging import Judged, count_faults, judge_answers
from kontext_trt.benchmarks.quality.public.layouts import Item, read_bench
from kontext_trt.benchmarks.quality.public.running import Run, run_bench
from kontext_trt.benchmarks.quality.public.summary import rows


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as opened:
        yield opened


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    return read_bench(kontext_bench(tmp_path / "bench", 6)).items


@pytest.fixture
def made(items: tuple[Item, ...], tmp_path: Path) -> Run:
    return run_bench(QuickKontext().opened, items, tmp_path / "out")


def options(server: JudgeServer) -> JudgeOptions:
    return JudgeOptions(url=server.url, model="m", wait_seconds=0.01, workers=3)


def by_instruction(asked: Asked) -> Reply:
    number = int(asked.text.split('"make it number ')[1][0])
    return Reply(content=json.dumps({"semantic_consistency": number, "perceptual_quality": 4}))


def judge(items: tuple[Item, ...], made: Run, server: JudgeServer) -> dict[str, Judged]:
    return judge_answers(made.folder, items, made.answers, options(server))


def test_marks_are_of_their_items(items: tuple[Item, ...], made: Run, server: JudgeServer):
    server.reply = by_instruction
    verdicts = judge(items, made, server)
    assert list(verdicts) == [item.key for item in items]
    assert [verdict.marks.semantic_consistency for verdict in verdicts.values() if verdict.marks] == [0, 1, 2, 3, 4, 5]
    assert {asked.pictures[0].size for asked in server.asked} == {(64, 48)}, "the original is first"
    assert {asked.pictures[1].size for asked in server.asked} == {(32, 16)}
    every, first, *_ = rows(items, made, {}, verdicts)
    assert (every.judged, every.semantic_consistency, every.perceptual_quality) == (6, 2.5, 4)
    assert first.overall == pytest.approx((0 + 20**0.5) / 2)


def test_what_was_said_is_not_asked_again(items: tuple[Item, ...], made: Run, server: JudgeServer):
    first = judge(items, made, server)
    assert judge(items, made, server) == first
    assert len(server.asked) == 6
    other = options(server)
    judge_answers(made.folder, items, made.answers, replace(other, model="another"))
    assert len(server.asked) == 12, "another model says something else"


def test_questions_without_marks_are_asked_again(items: tuple[Item, ...], made: Run, server: JudgeServer):
    server.reply = lambda asked: Reply(content="?") if "number 2" in asked.text else by_instruction(asked)
    verdicts = judge(items, made, server)
    assert verdicts["0002"].marks is None
    assert verdicts["0002"].raw == "?"
    assert verdicts["0002"].faults == {"malformed": 4}
    assert count_faults(verdicts) == {"malformed": 4}
    assert rows(items, made, {}, verdicts)[0].judged == 5
    server.reply = by_instruction
    server.asked.clear()
    verdicts = judge(items, made, server)
    assert len(server.asked) == 1
    assert rows(items, made, {}, verdicts)[0].judged == 6


def test_an_end_in_the_middle_changes_nothing(
    items: tuple[Item, ...], made: Run, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
):
    class Interrupting:
        done = 0

        def start(self, task: str, total: float) -> None:
            pass

        def advance(self, amount: float) -> None:
            self.done += 1
            if self.done == 3:
                raise KeyboardInterrupt

    server.reply = by_instruction
    with pytest.raises(KeyboardInterrupt):
        judge_answers(made.folder, items, made.answers, options(server), Interrupting())
    file = made.folder / "judge.jsonl"
    assert len(file.read_text().splitlines()) == 3
    with file.open("ab") as cut:
        cut.write(b'{"key": "00')
    verdicts = judge(items, made, server)
    assert [one.marks.semantic_consistency for one in verdicts.values() if one.marks] == [0, 1, 2, 3, 4, 5]
    assert len(file.read_text().splitlines()) == 6


def test_another_question_is_asked_anew(
    items: tuple[Item, ...], made: Run, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
):
    judge(items, made, server)
    monkeypatch.setattr(judging_module, "FORM", "another")
    judge(items, made, server)
    assert len(server.asked) == 12


def test_several_are_asked_at_once(items: tuple[Item, ...], made: Run, server: JudgeServer):
    here = threading.Barrier(3, timeout=30)
    server.lock = threading.Semaphore(3)  # pyright: ignore[reportAttributeAccessIssue]

    def together(_: Asked) -> Reply:
        here.wait()
        return Reply()

    server.reply = together
    assert len(judge(items, made, server)) == 6


def test_a_wrong_key_ends_it(items: tuple[Item, ...], made: Run, server: JudgeServer):
    server.reply = lambda _: Reply(status=401, body=b"wrong key")
    with pytest.raises(BenchmarkError, match="the judge answers 401: wrong key"):
        judge(items, made, server)
    assert len(server.asked) <= 3


def test_no_judge_ends_it(items: tuple[Item, ...], made: Run):
    with judging() as server:
        pass
    with pytest.raises(BenchmarkError, match=r"the first 3 questions found no judge: .* cannot be reached"):
        judge(items, made, server)


def test_a_picture_that_cannot_be_shown_gets_no_marks(items: tuple[Item, ...], made: Run, server: JudgeServer):
    items[1].picture.write_bytes(b"no picture")
    verdicts = judge(items, made, server)
    assert verdicts["0001"].attempts == 0
    assert verdicts["0001"].marks is None
    assert "0001.png" in str(verdicts["0001"].error)
    assert len(server.asked) == 5

"""States of requests that are asked for later, in memory and in files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kontext_trt.serving import tasks
from kontext_trt.serving.options import Keeping, Limits, ServingOptions
from kontext_trt.serving.state import Shelf, StateFolder
from kontext_trt.serving.tasks import LOST_SECONDS, FiledTasks, Task, Tasks


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return StateFolder(tmp_path / "state").shelf("tasks")


def aged(path: Path, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(path, (past, past))


def test_another_process_sees_how_far_a_task_is(shelf: Shelf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks, "SECONDS_BETWEEN_WRITES", 3600)
    here, there = (FiledTasks(ServingOptions(), shelf) for _ in range(2))
    task = Task()
    here.put("a", task)
    assert there.get("a") == Task()
    for progress in (0.25, 0.5):
        task.progress = progress
        here.step("a", task)
    found = there.get("a")
    assert found is not None
    assert found.progress == 0.25, "not each step is written"
    task.status, task.result = "Ready", {"sample": "http://x"}
    here.put("a", task)
    assert there.get("a") == task
    assert there.get("b") is None


def test_a_task_whose_process_says_nothing_is_lost(shelf: Shelf):
    filed = FiledTasks(ServingOptions(), shelf)
    for name, status in (("a", "Pending"), ("b", "Ready")):
        filed.put(name, Task(status=status))
        aged(shelf.path(name), LOST_SECONDS + 1)
    lost, ready = filed.get("a"), filed.get("b")
    assert lost is not None
    assert lost.details is not None
    assert (lost.status, lost.details["code"]) == ("Error", "lost")
    assert ready == Task(status="Ready")


@pytest.mark.parametrize("filed", [False, True])
def test_they_are_kept_as_long_as_results_are(shelf: Shelf, filed: bool):
    options = ServingOptions(limits=Limits(seconds=0.05), keeping=Keeping(result_seconds=0.05))
    kept = FiledTasks(options, shelf) if filed else Tasks(options)
    kept.put("a", Task())
    assert kept.get("a") == Task()
    time.sleep(0.15)
    assert kept.get("a") is None
    kept.expire()
    assert len(shelf) == 0

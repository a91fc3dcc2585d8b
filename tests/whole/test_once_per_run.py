"""What tests share is made once, and whole."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from once_per_run import OncePerRun


def write_slowly(path: Path) -> None:
    path.mkdir()
    with (path.parent / "written").open("a") as log:
        log.write("once\n")
    time.sleep(0.2)  # another would come meanwhile
    (path / "whole").touch()


def use(folder: Path) -> None:
    assert (OncePerRun(folder).make("thing", write_slowly) / "whole").exists()


def test_processes_make_it_once(tmp_path: Path) -> None:
    fresh = multiprocessing.get_context("spawn")
    processes = [fresh.Process(target=use, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "written").read_text() == "once\n"


def test_what_failed_is_made_anew(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise OSError("on purpose")

    once = OncePerRun(tmp_path)
    with pytest.raises(OSError, match="on purpose"):
        once.make("thing", fail)
    made = once.make("thing", write_slowly)
    assert [file.name for file in made.iterdir()] == ["whole"]
    assert once.make("thing", fail) == made

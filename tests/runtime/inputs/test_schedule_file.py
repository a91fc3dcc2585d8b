"""Schedules in files: what is written is read, and what is none is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kontext_trt import RequestError, Sampling, Solver
from kontext_trt.runtime.inputs.schedule_file import MAX_BYTES, Schedule

SCHEDULE = Schedule(
    bundle="0" * 64,
    solver=Solver.AB2,
    sigmas=(1.0, 0.7, 0.3),
    step_mask=(True, False, True),
    cost=0.4,
    of_steps=5,
    requests=3,
    latents_db=20.5,
    of_steps_db=25.0,
    created="2026-11-29T00:00:00+00:00",
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    SCHEDULE.save(tmp_path / "schedule.json")
    read = Schedule.open(tmp_path / "schedule.json")
    assert read == SCHEDULE
    sampling = Sampling(**read.keywords())
    assert (sampling.solver, sampling.sigmas, sampling.step_mask) == (Solver.AB2, (1.0, 0.7, 0.3), (True, False, True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "is no schedule"),
        ({"solver": "heun"}, "is no schedule"),
        ({"sigmas": [1.0, 1.0, 0.5]}, r"is no schedule \(sigmas must fall"),
        ({"step_mask": [False, True, True]}, r"is no schedule \(the first step of step_mask must be 1"),
        ({"step_mask": [True]}, "its mask is of 1 steps, and it has 3"),
        ({"cost": 0}, "is no schedule"),
        ({"bundle": "x"}, "is no schedule"),
    ],
)
def test_what_is_none_is_told(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    SCHEDULE.save(path := tmp_path / "schedule.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RequestError, match=words):
        Schedule.open(path)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.json cannot be read: No such file or directory"):
        Schedule.open(tmp_path / "none.json")
    (tmp_path / "large.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(RequestError, match="it has more than 1,048,576 bytes"):
        Schedule.open(tmp_path / "large.json")

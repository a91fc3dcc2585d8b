"""Sessions in files: two processes go on with each other's, and none loses a turn of the other."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kontext_trt import Kontext, KontextError
from kontext_trt.serving.filed_sessions import FiledSessions
from kontext_trt.serving.options import Keeping
from kontext_trt.serving.refusals import Refusal
from kontext_trt.serving.state import Shelf, StateFolder

QUICK = {"steps": 1, "seed": 1, "size": (32, 32)}


@pytest.fixture
def png(picture: Callable) -> bytes:
    file = io.BytesIO()
    picture(32, 32).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return StateFolder(tmp_path / "state").shelf("sessions")


def test_another_process_goes_on_with_a_session(kontext: Kontext, png: bytes, shelf: Shelf):
    here, there = (FiledSessions(kontext, Keeping(), shelf) for _ in range(2))
    session = here.begin(png)
    made = session.edit("x", **QUICK)
    name = here.keep(session)
    assert here.get(name) is session, "what this process wrote last is in memory"
    other = there.get(name)
    assert other is not session
    assert np.array_equal(other.image, made.picture())
    other.edit("y", **QUICK)
    assert there.go_on(name, other, other) == name
    assert [turn.number for turn in here.get(name).history] == [1, 2]
    assert len(here) == len(there) == 1
    assert here.size_bytes == shelf.path(name).stat().st_size
    here.end(name)
    with pytest.raises(Refusal, match="there is no such session; one ends 3600 s after its last use"):
        there.get(name)


def test_a_turn_that_another_process_overtook_is_refused(kontext: Kontext, png: bytes, shelf: Shelf):
    here, there = (FiledSessions(kontext, Keeping(), shelf) for _ in range(2))
    name = here.keep(here.begin(png))
    mine, others = here.get(name), there.get(name)
    others.edit("theirs", **QUICK)
    there.go_on(name, others, others)
    mine.edit("mine", **QUICK)
    with pytest.raises(Refusal, match="another request has edited or ended this session meanwhile") as caught:
        here.go_on(name, mine, mine)
    assert (caught.value.status, caught.value.code) == (409, "session_changed")
    again = here.get(name)
    assert [turn.request["prompt"] for turn in again.history] == ["theirs"]
    again.edit("mine", **QUICK)
    here.go_on(name, again, again)
    assert [turn.request["prompt"] for turn in there.get(name).history] == ["theirs", "mine"]
    assert {path.name for path in shelf.path(name).parent.iterdir()} == {".lock", shelf.path(name).name}


def test_two_turns_in_one_process_are_both_kept(kontext: Kontext, png: bytes, shelf: Shelf):
    sessions = FiledSessions(kontext, Keeping(), shelf)
    name = sessions.keep(sessions.begin(png))
    first, second = sessions.get(name), sessions.get(name)
    first.edit("a", **QUICK)
    second.edit("b", **QUICK)
    sessions.go_on(name, first, first)
    sessions.go_on(name, second, second)
    fresh = FiledSessions(kontext, Keeping(), shelf).get(name)
    assert [turn.request["prompt"] for turn in fresh.history] == ["a", "b"]


def test_of_two_branches_the_first_goes_on(kontext: Kontext, png: bytes, shelf: Shelf):
    sessions = FiledSessions(kontext, Keeping(), shelf)
    name = sessions.keep(sessions.begin(png))
    before = sessions.get(name)
    first, second = before.branch(), before.branch()
    first.edit("a", **QUICK)
    second.edit("b", **QUICK)
    assert sessions.go_on(name, before, first) == name
    with pytest.raises(Refusal, match="another request has edited or ended this session meanwhile"):
        sessions.go_on(name, before, second)
    assert [turn.request["prompt"] for turn in sessions.get(name).history] == ["a"]


def test_a_turn_of_a_session_that_ended_does_not_bring_it_back(kontext: Kontext, png: bytes, shelf: Shelf):
    sessions = FiledSessions(kontext, Keeping(), shelf)
    name = sessions.keep(sessions.begin(png))
    before = sessions.get(name)
    sessions.end(name)
    with pytest.raises(Refusal, match="another request has edited or ended this session meanwhile"):
        sessions.go_on(name, before, before)
    assert len(sessions) == 0


def test_they_end_and_are_bounded(kontext: Kontext, png: bytes, shelf: Shelf):
    sessions = FiledSessions(kontext, Keeping(sessions=2, session_seconds=60), shelf)
    names = []
    for age in (50, 40, 0):
        names.append(sessions.keep(sessions.begin(png)))
        past = time.time() - age
        os.utime(shelf.path(names[-1]), (past, past))
    assert len(sessions) == 2
    with pytest.raises(Refusal, match="no such session"):
        sessions.get(names[0])
    past = time.time() - 61
    os.utime(shelf.path(names[1]), (past, past))
    with pytest.raises(Refusal, match="no such session"):
        sessions.get(names[1])
    sessions.expire()
    assert len(sessions) == 1


def test_files_that_cannot_be_used_are_this_machines_fault(
    kontext: Kontext, png: bytes, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
):
    sessions = FiledSessions(kontext, Keeping(), shelf)
    shelf.write("damaged", b"no archive")
    with pytest.raises(Refusal, match="no such session"):
        sessions.get("damaged")
    monkeypatch.setattr(shelf, "temporary", lambda name: Path("/proc/none"))
    with pytest.raises(KontextError, match="a session cannot be kept: /proc/none cannot be written"):
        sessions.keep(sessions.begin(png))

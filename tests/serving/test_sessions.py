"""Sessions between requests: they end when they were not used, and there are only so many."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest

from kontext_trt import Kontext
from kontext_trt.serving.options import Keeping
from kontext_trt.serving.refusals import Refusal
from kontext_trt.serving.sessions import Sessions


@pytest.fixture
def png(picture: Callable) -> bytes:
    file = io.BytesIO()
    picture(32, 32).save(file, format="PNG")
    return file.getvalue()


def test_the_one_used_longest_ago_ends_first(kontext: Kontext, png: bytes):
    sessions = Sessions(kontext, Keeping(sessions=2))
    first, second = (sessions.keep(sessions.begin(png)) for _ in range(2))
    sessions.get(first)
    third = sessions.keep(sessions.begin(png))
    assert len(sessions) == 2
    assert sessions.size_bytes == 2 * 4 * 32 * 32
    assert sessions.get(first)
    assert sessions.get(third)
    with pytest.raises(Refusal, match="there is no such session; one ends 3600 s after its last use") as caught:
        sessions.get(second)
    assert (caught.value.status, caught.value.code) == (404, "session_not_found")


def test_use_makes_it_last(kontext: Kontext, png: bytes):
    sessions = Sessions(kontext, Keeping(session_seconds=0.2))
    name = sessions.keep(sessions.begin(png))
    for _ in range(3):
        time.sleep(0.1)
        assert sessions.get(name)
    time.sleep(0.25)
    sessions.expire()
    assert len(sessions) == 0
    with pytest.raises(Refusal, match="no such session"):
        sessions.end(name)


def test_a_session_goes_on_with_one_of_what_became_of_it(kontext: Kontext, png: bytes):
    """As sessions in files do: the same status, code and words."""
    sessions = Sessions(kontext, Keeping())
    name = sessions.keep(sessions.begin(png))
    before = sessions.get(name)
    first, second = before.branch(), before.branch()
    assert sessions.go_on(name, before, first) == name
    with pytest.raises(Refusal, match="another request has edited or ended this session meanwhile") as caught:
        sessions.go_on(name, before, second)
    assert (caught.value.status, caught.value.code, caught.value.param) == (409, "session_changed", "session")
    assert caught.value.headers == {"x-should-retry": "false"}
    assert sessions.get(name) is first
    sessions.end(name)
    with pytest.raises(Refusal, match="another request has edited or ended this session meanwhile"):
        sessions.go_on(name, first, first)
    assert len(sessions) == 0

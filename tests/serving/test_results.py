"""Pictures with an address: for a while, and within a number of bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kontext_trt.serving.options import Keeping
from kontext_trt.serving.refusals import Refusal
from kontext_trt.serving.results import FiledResults, Results, Stored
from kontext_trt.serving.state import StateFolder


def stored(size: int) -> Stored:
    return Stored(data=bytes(size), media_type="image/png")


Make = Callable[[Keeping], "Results | FiledResults"]


@pytest.fixture(params=["memory", "files"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Where pictures are kept, by how much."""
    if request.param == "memory":
        return Results
    return lambda keeping: FiledResults(keeping, StateFolder(tmp_path / "state").shelf("results"))


def test_the_oldest_go_first(make: Make):
    results = make(Keeping(result_bytes=100))
    names = [results.put(stored(40)) for _ in range(3)]
    assert results.size_bytes in (80, 100), "files hold their media types, too"
    assert results.get(names[2]).data == bytes(40)
    with pytest.raises(Refusal, match="there is no such picture; each is kept for 600 s, in bounded memory") as caught:
        results.get(names[0])
    assert caught.value.status == 404


def test_what_was_kept_long_enough_goes(make: Make):
    results = make(Keeping(result_seconds=0.02))
    name = results.put(stored(40))
    assert results.get(name)
    time.sleep(0.03)
    results.expire()
    assert results.size_bytes == 0
    with pytest.raises(Refusal, match="no such picture"):
        results.get(name)


def test_a_picture_larger_than_everything_is_refused(make: Make):
    with pytest.raises(Refusal, match="has 101 bytes, more than are kept for addresses; ask for b64_json"):
        make(Keeping(result_bytes=100)).put(stored(101))

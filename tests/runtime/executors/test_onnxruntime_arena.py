"""The graphs that fill and empty an arena, which have no file and are written as bytes; and who uses one."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from kontext_trt.runtime.executors import onnxruntime_arena
from kontext_trt.runtime.executors.onnxruntime_arena import _BYTES, _IDENTITY, ArenaUsers, Emptier, arena_users


def test_the_graph_that_reserves_gives_as_many_bytes_as_it_is_asked_for():
    onnx.checker.check_model(onnx.ModelProto.FromString(_BYTES), full_check=True)
    (found,) = ort.InferenceSession(_BYTES, providers=["CPUExecutionProvider"]).run(None, {"n": np.array([1000])})
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.nbytes) == (np.uint8, 1000)


def test_the_graph_that_empties_gives_its_float_back():
    onnx.checker.check_model(onnx.ModelProto.FromString(_IDENTITY), full_check=True)
    given = {"x": np.array([7.0], np.float32)}
    (found,) = ort.InferenceSession(_IDENTITY, providers=["CPUExecutionProvider"]).run(None, given)
    assert found == 7.0


class User:
    def __init__(self, said: list[str], name: str) -> None:
        self.said, self.name = said, name

    def drop(self) -> None:
        self.said.append(self.name)


class Session:
    """Says when it runs, and with which of ONNX Runtime's entries; or fails."""

    def __init__(self, said: list[str], words: str = "") -> None:
        self.said, self.words = said, words

    def run(self, outputs: None, given: dict[str, np.ndarray], options: ort.RunOptions) -> None:
        try:
            entry = options.get_run_config_entry("memory.enable_memory_arena_shrinkage")
        except RuntimeError:  # there is none
            self.said.append("ran")
            return
        self.said.append(f"emptied {entry}")
        if self.words:
            raise RuntimeError(self.words)


@pytest.fixture
def emptier(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ArenaUsers, list[str], Emptier]]:
    def make(words: str = "") -> tuple[ArenaUsers, list[str], Emptier]:
        said: list[str] = []
        users = ArenaUsers()
        monkeypatch.setattr(onnxruntime_arena, "arena_users", {3: users}.__getitem__)
        monkeypatch.setattr(onnxruntime_arena, "_session", lambda graph, device: Session(said, words))
        empty = Emptier(3)
        assert said == ["ran"], "what its first run takes is taken while there is memory"
        said.clear()
        return users, said, empty

    return make


def test_all_who_use_an_arena_drop_their_graphs_before_it_is_emptied(emptier: Callable):
    users, said, empty = emptier()
    one, other = User(said, "one"), User(said, "other")
    for user in (one, other):
        users.add(user.drop)
    empty()
    assert said == ["one", "other", "emptied gpu:3"]
    del one, user
    gc.collect()
    empty()
    assert said[3:] == ["other", "emptied gpu:3"], "who is gone is not asked"
    assert other.name


def test_an_arena_is_not_emptied_while_another_works(emptier: Callable):
    users, said, empty = emptier()
    emptying = threading.Thread(target=empty)
    with users.turn:
        emptying.start()
        emptying.join(0.2)
        assert said == []
    emptying.join(10)
    assert said == ["emptied gpu:3"]


def test_an_arena_that_cannot_be_emptied_is_no_error(emptier: Callable, caplog: pytest.LogCaptureFixture):
    """It is emptied where memory lacks, and whoever needs the memory has an error that says so."""
    _, said, empty = emptier("CUBLAS_STATUS_ALLOC_FAILED\nand where")
    empty()
    assert said == ["emptied gpu:3"]
    assert caplog.messages == ["ONNX Runtime does not give back the memory that it keeps: CUBLAS_STATUS_ALLOC_FAILED"]


def test_a_device_has_one_arena():
    assert arena_users(5) is arena_users(5)
    assert arena_users(5) is not arena_users(6)

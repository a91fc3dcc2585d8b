"""The graphs that fill and empty an arena, which have no file and are written as bytes; and who uses one."""

from __future__ import annotations

import gc
import threading

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from kontext_trt.runtime.executors import onnxruntime_arena
from kontext_trt.runtime.executors.onnxruntime_arena import _BYTES, _IDENTITY, ArenaUsers, arena_users, empty_arena


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


def test_all_who_use_an_arena_drop_their_graphs_before_it_is_emptied(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    users = ArenaUsers()
    monkeypatch.setattr(onnxruntime_arena, "arena_users", {3: users}.__getitem__)
    monkeypatch.setattr(onnxruntime_arena, "_shrink", lambda device: said.append(f"emptied {device}"))
    one, other = User(said, "one"), User(said, "other")
    for user in (one, other):
        users.add(user.drop)
    empty_arena(3)
    assert said == ["one", "other", "emptied 3"]
    del one, user
    gc.collect()
    empty_arena(3)
    assert said[3:] == ["other", "emptied 3"], "who is gone is not asked"
    assert other.name


def test_an_arena_is_not_emptied_while_another_works(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    users = ArenaUsers()
    monkeypatch.setattr(onnxruntime_arena, "arena_users", {0: users}.__getitem__)
    monkeypatch.setattr(onnxruntime_arena, "_shrink", lambda device: said.append("emptied"))
    emptying = threading.Thread(target=empty_arena, args=(0,))
    with users.turn:
        emptying.start()
        emptying.join(0.2)
        assert said == []
    emptying.join(10)
    assert said == ["emptied"]


def test_a_device_has_one_arena():
    assert arena_users(5) is arena_users(5)
    assert arena_users(5) is not arena_users(6)

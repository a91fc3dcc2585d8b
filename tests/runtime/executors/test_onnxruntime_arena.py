"""The graphs that fill and empty an arena, which have no file and are written as bytes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from kontext_trt.runtime.executors.onnxruntime_arena import _BYTES, _IDENTITY


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

"""Arrays of memory that is another's, and where arrays lie."""

from __future__ import annotations

import numpy as np
import pytest

from kontext_trt.runtime.operators.cpu.bodies import Value
from kontext_trt.runtime.operators.cpu.memory import array_at, value_of


def test_an_array_is_its_memory():
    owner = np.arange(24, dtype=np.float32)
    shown = array_at(owner.ctypes.data, (2, 3, 4), "fp32")
    assert np.array_equal(shown.ravel(), owner)
    shown[1, 2, 3] = 7
    assert owner[23] == 7
    bytes_ = np.arange(6, dtype=np.uint8)
    assert np.array_equal(array_at(bytes_.ctypes.data, (6,), "fp8").view(np.uint8), bytes_)
    assert array_at(owner.ctypes.data, (), "fp32") == 0
    assert array_at(owner.ctypes.data, (2, 0, 4), "fp32").shape == (2, 0, 4)


def test_only_what_is_contiguous_has_a_place():
    array = np.zeros((3, 4), np.float32)
    assert value_of(array) == Value(array.ctypes.data, (3, 4))
    with pytest.raises(AssertionError):
        value_of(array[:, :2])

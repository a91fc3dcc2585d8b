"""A workspace in host memory: tensors are NumPy arrays, stages run one after another."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...engine.components import ElementType
from ..flow.executor import Array, Performed
from ..flow.stages import Stage
from ..flow.tensors import RequestShape, TensorSpec

NUMPY_TYPES: Mapping[ElementType, type[np.generic]] = {
    ElementType.FLOAT32: np.float32,
    ElementType.FLOAT16: np.float16,
    ElementType.BFLOAT16: np.uint16,  # NumPy has no bfloat16: its bits
    ElementType.INT32: np.int32,
    ElementType.UINT8: np.uint8,
}

Run = Callable[[str, Mapping[str, Array], Mapping[str, Array]], None]
"""Computes a component, from input arrays into output arrays."""


def empty(spec: TensorSpec) -> NDArray[np.generic]:
    return np.empty(spec.shape, NUMPY_TYPES[spec.element_type])


class HostWorkspace:
    """See `Workspace`. `run` is the executor's."""

    def __init__(self, shape: RequestShape, tensors: Mapping[str, TensorSpec], run: Run) -> None:
        self.shape = shape
        self._run = run
        self._tensors = {name: empty(spec) for name, spec in tensors.items()}

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name]

    def run(self, component: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._run(component, inputs, outputs)

    def copy(self, source: Array, to: Array) -> None:
        to[...] = source

    def perform(self, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]) -> Performed:
        for name, array in inputs.items():
            self._tensors[name][...] = array
        times = [time.perf_counter()]
        for stage in stages:
            stage.run(self)
            times.append(time.perf_counter())
        return Performed(
            outputs={name: self._tensors[name].copy() for name in outputs},
            milliseconds=tuple(1e3 * (end - start) for start, end in itertools.pairwise(times)),
        )

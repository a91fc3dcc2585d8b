"""Implements a workspace in host memory, whose tensors are NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..flow.tensors import RequestShape, TensorSpec, empty
from ..flow.workspace import Array

Compute = Callable[[str, Mapping[str, Array], Mapping[str, Array]], None]
"""A function that computes a component, from input arrays into output arrays."""


class HostWorkspace:
    """Implements `Workspace` with NumPy arrays. `compute` is the executor's."""

    def __init__(self, shape: RequestShape, tensors: Mapping[str, TensorSpec], compute: Compute) -> None:
        self.shape = shape
        self._compute = compute
        self._tensors = {name: empty(spec) for name, spec in tensors.items()}

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def run(self, component: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._compute(component, inputs, outputs)

    def copy(self, source: Array, to: Array) -> None:
        to[...] = source

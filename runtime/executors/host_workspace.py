"""Implements a workspace in host memory, whose tensors are NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..flow.group import Group, Piece
from ..flow.shared_stages import Pieces
from ..flow.tensors import RequestShape, TensorSpec, empty
from ..flow.workspace import Array

Compute = Callable[[str, Mapping[str, Array], Mapping[str, Array]], None]
"""A function that computes a component, from input arrays into output arrays."""


class HostWorkspace:
    """Implements `Workspace` with NumPy arrays. `compute` is the executor's, `group` the ranks that share requests."""

    def __init__(
        self, shape: RequestShape, tensors: Mapping[str, TensorSpec], compute: Compute, group: Group | None = None
    ) -> None:
        self.shape = shape
        self._compute, self._group = compute, group
        self._tensors = {name: empty(spec) for name, spec in tensors.items()}

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def run(self, component: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._compute(component, inputs, outputs)

    def copy(self, source: Array, to: Array) -> None:
        to[...] = source

    def swap(self, sends: Pieces, receives: Pieces) -> None:
        assert self._group is not None
        sent, received = (
            [Piece(rank, one.ctypes.data, one.nbytes) for rank, one in part] for part in (sends, receives)
        )
        self._group.swap(sent, received)

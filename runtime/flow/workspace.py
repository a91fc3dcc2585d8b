"""Defines the tensors of a request where an executor keeps them, as the stages of the flow see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from .tensors import RequestShape

Array = NDArray[Any]


class Tensor(Protocol):
    """Stands for a tensor where its executor keeps it, on the host or a GPU. NumPy arrays are such tensors."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any) -> Any:
        """Return a row as `tensor[i]`, or rows as `tensor[i:j]` with their axis kept, without a copy."""
        ...

    def reshape(self, shape: Any) -> Any:
        """Return the same values in another shape, without a copy."""
        ...


class Workspace(Protocol):
    """Holds the tensors of one request shape, by their names in `tensors.request_tensors`, and computes on them.

    Tensors keep their place as long as the workspace lives.
    """

    @property
    def shape(self) -> RequestShape: ...

    def __getitem__(self, name: str) -> Any:
        """Return a `Tensor` of the workspace."""
        ...

    def __contains__(self, name: str) -> bool:
        """Return whether there is a tensor of this name."""
        ...

    def run(self, component: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Compute a component's outputs into tensors. Raises ExecutorError, naming the component."""
        ...

    def copy(self, source: Any, to: Any) -> None:
        """Copy a tensor into one of the same shape."""
        ...

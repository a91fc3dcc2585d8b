"""What the flow loop needs of whatever runs the components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Value = Any
"""A tensor where its executor keeps it, on the host or a GPU. Nobody else looks inside."""


class Executor(Protocol):
    """Runs components of one bundle. Not safe for concurrent use: the session that owns it takes turns.

    Inputs may be host arrays or values of this executor. Values stay valid until the executor closes.
    """

    name: str
    """Executor and device, for people: "onnxruntime (cpu)"."""

    def run(self, component: str, inputs: Mapping[str, Value | NDArray[Any]]) -> dict[str, Value]:
        """Outputs by name. Raises ExecutorError, naming the component."""
        ...

    def row(self, value: Value, index: int) -> Value:
        """`value[index]`, without a copy."""
        ...

    def fetch(self, value: Value) -> NDArray[Any]:
        """A host copy of a float32, int32 or uint8 value."""
        ...

    def load(self, component: str) -> None:
        """Make a component ready to run, if it is not."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is allowed."""
        ...


def nonfinite_count(array: NDArray[np.float32]) -> int:
    """How many values are NaN or infinite."""
    return int(array.size - np.count_nonzero(np.isfinite(array)))

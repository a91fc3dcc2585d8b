"""What the flow needs of whatever runs the components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from .tensors import RequestShape

if TYPE_CHECKING:
    from .stages import Stage

Array = NDArray[Any]


class Tensor(Protocol):
    """A tensor where its executor keeps it, on the host or a GPU. NumPy arrays are such tensors."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any) -> Any:
        """A row as `tensor[i]`, or as `tensor[i : i + 1]` with its axis kept, without a copy."""
        ...

    def reshape(self, shape: Any) -> Any:
        """The same values in another shape, without a copy."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """What came of some stages: the tensors asked for, on the host, and the milliseconds each stage took."""

    outputs: Mapping[str, Array]
    milliseconds: tuple[float, ...]


class Workspace(Protocol):
    """The tensors of one request shape, by their names in `tensors.request_tensors`, and the means to compute them.

    Tensors keep their place as long as the workspace lives.
    """

    @property
    def shape(self) -> RequestShape: ...

    def __getitem__(self, name: str) -> Any:
        """A `Tensor` of the workspace."""
        ...

    def run(self, component: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Compute a component's outputs into tensors. Raises ExecutorError, naming the component."""
        ...

    def copy(self, source: Any, to: Any) -> None:
        """Copy a tensor into one of the same shape."""
        ...

    def perform(self, stages: Sequence[Stage], inputs: Mapping[str, Array], outputs: Sequence[str]) -> Performed:
        """Write `inputs`, run the stages in order, and read `outputs`.

        Raises ExecutorError; the workspace is usable afterwards unless the executor says that it is not.
        """
        ...


class Executor(Protocol):
    """Runs components of one bundle. Not safe for concurrent use: the session that owns it takes turns."""

    @property
    def name(self) -> str:
        """Executor and device, for people: "onnxruntime (cpu)"."""
        ...

    def workspace(self, shape: RequestShape) -> Workspace:
        """For requests of a shape; valid until the next call."""
        ...

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One component alone, from host arrays to host arrays. Raises ExecutorError, naming the component."""
        ...

    def load(self, component: str) -> None:
        """Make a component ready to run, if it is not."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is allowed."""
        ...

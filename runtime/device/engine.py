"""What a device workspace needs of whatever computes a component on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..flow.tensors import RequestShape
from .cuda import Handle
from .memory import DeviceTensor

Shapes = Mapping[str, tuple[int, ...]]


class Bound(Protocol):
    """An engine made ready for inputs of certain shapes. Recorded work refers to it, so it must outlive every graph
    that recorded it."""

    @property
    def activation_bytes(self) -> int:
        """What it needs of the arena."""
        ...

    def enqueue(self, tensors: Mapping[str, DeviceTensor], arena: tuple[int, int], stream: Handle) -> None:
        """Put one execution on the stream. `tensors` are inputs and outputs, `arena` an address and its size.

        Raises ExecutorError, naming the component.
        """
        ...

    def recordable(self, stream: Handle) -> bool:
        """Whether the library lets an execution be recorded now; it may have kernels to finish first."""
        ...

    def close(self) -> None: ...


class Engine(Protocol):
    """A component's weights on the device."""

    @property
    def capturable(self) -> bool:
        """Its executions may be recorded in a CUDA graph."""
        ...

    def bind(self, shapes: Shapes) -> Bound:
        """Raises ExecutorError or RequestError, naming the component, for shapes that it does not take."""
        ...

    def close(self) -> None:
        """Release the weights. Whatever it bound was closed before."""
        ...


class Engines(Protocol):
    """Where engines come from: TensorRT or ONNX Runtime."""

    @property
    def name(self) -> str:
        """Library and version, for people."""
        ...

    @property
    def allocates(self) -> bool:
        """Executions may allocate device memory, also when they are recorded."""
        ...

    def check(self, shape: RequestShape) -> None:
        """Raise RequestError for a request that the engines do not take, before any of them is loaded for it."""
        ...

    def open(self, component: str, stream: Handle, streaming_budget: int | None) -> Engine:
        """Load a component's weights. Those beyond a budget in bytes stay on the host and stream in when they are
        needed; None keeps all on the device.

        Raises PlanError, BundleError or ExecutorError.
        """
        ...

    def forget_failure(self) -> None:
        """After a recording that failed: forget the error that the library's own CUDA runtime remembers."""
        ...

    def close(self) -> None: ...

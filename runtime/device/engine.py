"""Defines what a device workspace needs of whatever computes a component on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from ..flow.tensors import RequestShape
from .cuda import Handle
from .memory import DeviceTensor

Shapes = Mapping[str, tuple[int, ...]]


class Bound(Protocol):
    """Stands for an engine made ready for inputs of certain shapes.

    Recorded work refers to it, so it must outlive every graph that recorded it.
    """

    @property
    def activation_bytes(self) -> int:
        """The bytes that it needs of the arena."""
        ...

    def place(self, arena: tuple[int, int]) -> None:
        """Make activations lie in an arena, an address and its size, from now on. Never while a graph is recorded."""
        ...

    def enqueue(self, tensors: Mapping[str, DeviceTensor], stream: Handle) -> None:
        """Put one execution on the stream. `tensors` are inputs and outputs.

        Raises ExecutorError, naming the component.
        """
        ...

    def recordable(self, stream: Handle) -> bool:
        """Return whether the library lets an execution be recorded now; it may have kernels to finish first."""
        ...

    def close(self) -> None: ...


class Engine(Protocol):
    """Holds a component's weights on the device."""

    @property
    def capturable(self) -> bool:
        """True if its executions may be recorded in a CUDA graph."""
        ...

    def bind(self, shapes: Shapes) -> Bound:
        """Make the engine ready for inputs of certain shapes.

        Raises ExecutorError or RequestError, naming the component, for shapes that it does not take.
        """
        ...

    def close(self) -> None:
        """Release the weights. Whatever it bound was closed before."""
        ...


class Engines(Protocol):
    """Opens engines for components, by TensorRT or ONNX Runtime."""

    @property
    def name(self) -> str:
        """The library's name for people; TensorRT's has its version."""
        ...

    @property
    def allocates(self) -> bool:
        """True if executions may allocate device memory, also when they are recorded."""
        ...

    @property
    def turn(self) -> AbstractContextManager[object]:
        """The lock that is held while they work: it keeps others of the process out that use the same memory."""
        ...

    def before_shrinking(self, forget: Callable[[], None]) -> None:
        """Take a method that drops graphs: it is called before `shrink` gives memory back, others' of the process too.

        It is held weakly.
        """
        ...

    def check(self, shape: RequestShape) -> None:
        """Raise RequestError for a request that the engines do not take, before any of them is loaded for it."""
        ...

    def open(self, component: str, stream: Handle, streaming_budget: int | None) -> Engine:
        """Load a component's weights.

        Those beyond a budget in bytes stay on the host and stream in when they are needed; None keeps all on the
        device.

        Raises PlanError, BundleError or ExecutorError.
        """
        ...

    def forget_failure(self) -> None:
        """Forget, after a recording that failed, the error that the library's own CUDA runtime remembers."""
        ...

    def shrink(self) -> None:
        """Give memory back that the library keeps between executions. No graph of before may be launched afterwards."""
        ...

    def close(self) -> None: ...

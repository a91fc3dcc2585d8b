"""Gives sessions of ONNX Runtime on a CUDA device the kernels of fused operators."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ...engine.errors import ExecutorError
from ..device.cuda import Cuda, Handle
from ..flow.group import Group
from ..flow.shares import Shares
from .catalogue import DEFINITIONS, DOMAIN, OPERATORS
from .cuda.device import KernelDevice
from .cuda.kernels import Kernels
from .cuda.registry import compile_for, computing
from .cuda.tensors import Tensors
from .cuda.weights import NodeWeights
from .definition import Definition, Kind
from .failures import raising_whole
from .functions import used_definitions
from .kernels import Attribute, Call, Input, Kernel, Operator
from .library import Domain

CUDA = "CUDAExecutionProvider"
_TYPES = {Kind.OWN: "bf16", Kind.FLOAT32: "fp32", Kind.FP8: "fp8"}
SEEN = 64
"""The inputs that a node remembers at most."""
Make = Callable[[Definition, Mapping[str, Attribute]], Kernel]
"""The kind of functions that make kernels."""
_opening = threading.local()
"""The kernels of the session that this thread is making."""


@dataclass(slots=True)
class _Seen:
    """Holds what a node did for inputs that it has seen: its outputs, and what it enqueued, by their addresses."""

    outputs: tuple[tuple[int, tuple[int, ...]], ...]
    launches: dict[tuple[int, ...], list[Callable[[], None]]]


class FusedKernel:
    """Computes one node of a session.

    All is checked when inputs are new. A step of the flow finds those of the step before it, at the same addresses, and
    enqueues the same again: a graph of many steps is recorded in a fraction of the time.
    """

    def __init__(self, kernels: Kernels, definition: Definition, attributes: Mapping[str, Attribute]) -> None:
        self._kernels, self._definition, self._attributes = kernels, definition, attributes
        self._weights = NodeWeights(kernels.device)
        self._seen: dict[tuple[tuple[Input, ...], Shares | None, int], _Seen] = {}

    def __call__(self, call: Call) -> None:
        stream, own = call.stream, self._kernels.device.stream_address
        if stream != own:
            raise ExecutorError(f"{self._definition.name} runs on stream {stream:#x}, and its kernels on {own:#x}")
        seen = self._seen.get(self._key(call))
        if seen is None:
            self._compute(call)
            return
        addresses = tuple(call.output(index, shape) for index, shape in seen.outputs)
        launches = seen.launches.get(addresses)
        if launches is None:
            self._compute(call)
            return
        for launch in launches:
            launch()

    def _key(self, call: Call) -> tuple[tuple[Input, ...], Shares | None, int]:
        """Return all that what is enqueued hangs on, but for the outputs' addresses."""
        return call.inputs, self._kernels.shares, self._kernels.device.scratches_freed

    def _compute(self, call: Call) -> None:
        tensors = Tensors(self._definition, call, self._attributes)
        made = computing(self._kernels, self._definition, tensors, self._weights)
        made.run()
        if len(self._seen) >= SEEN:
            self._seen.clear()
        seen = self._seen.setdefault(self._key(call), _Seen(tuple(tensors.outputs), {}))
        seen.launches[tuple(tensors.outputs.values())] = made.launches

    def close(self) -> None:
        """Free what the node keeps."""
        self._seen.clear()
        self._weights.close()


class FusedOperators:
    """Holds the kernels of an executor on a device.

    Args:
        cuda: The device.
        stream: The stream that sessions run on.
        architecture: What its kernels are compiled for: "sm_90".
        without: The names in the catalogue of operators whose bodies run instead, in all their formats.
        group: The ranks that share the tokens of a request, on this stream; None if there is but this one.

    Raises:
        MissingDependencyError: A package of the extra `fused` is missing.
        ValueError: There is no operator of a name, or it must not run its body in a group.
    """

    def __init__(
        self,
        cuda: Cuda,
        stream: Handle,
        architecture: str,
        *,
        without: AbstractSet[str] = frozenset(),
        group: Group | None = None,
    ) -> None:
        unknown = sorted(without - OPERATORS.keys())
        if unknown:
            raise ValueError(f"no fused operator is named {', '.join(unknown)}; they are {', '.join(OPERATORS)}")
        exchanging = {one.operator.name for one in DEFINITIONS.values() if one.exchanges}
        if group is not None and without & exchanging:
            names = ", ".join(sorted(without & exchanging))
            raise ValueError(f"{names} must have kernels where ranks share tokens: bodies know of no ranks")
        self._without = without
        self._kernels = Kernels(KernelDevice(cuda, stream, architecture), group)

    def compile(self, names: Iterable[str], hidden: int, head_width: int) -> None:
        """Compile the kernels of operators, by their names, for tokens and heads of these widths.

        Raises:
            ExecutorError: One cannot be compiled.
        """
        compile_for(self._kernels.device, used_definitions(names).values(), hidden, head_width)
        if self._kernels.exchange is not None:
            self._kernels.exchange.compile()

    @contextmanager
    def opening(self, options: Any, *, shared: bool = True) -> Iterator[None]:
        """Give the session that is made meanwhile, with these options, the kernels.

        If the kernels have a group, each rank holds a share of the session's tokens, or all of them unless `shared`.
        """
        ours = domain()
        kept = [
            one
            for one in ours.operators
            if one.provider == CUDA and DEFINITIONS[one.name].operator.name not in self._without
        ]
        ours.add_to(options, kept)
        _opening.kernels = self._kernels if shared else self._kernels.alone()
        try:
            with raising_whole():
                yield
        finally:
            del _opening.kernels

    @property
    def size_bytes(self) -> int:
        """The bytes of device memory that kernels share."""
        return self._kernels.device.size_bytes

    def shrink(self) -> None:
        """Free what kernels take anew when they need it. No graph of before may be launched."""
        self._kernels.shrink()

    def close(self) -> None:
        """Free what the kernels hold. No session that has them may run any more."""
        self._kernels.close()


@cache
def domain() -> Domain:
    """Return the process's domain of fused operators."""
    made = Domain(DOMAIN)
    made.add(*(operator_of(definition, _TYPES, _make, CUDA) for definition in DEFINITIONS.values()))
    return made


def operator_of(definition: Definition, types: Mapping[Kind, str], make: Make, provider: str) -> Operator:
    """Return an operator of the domain for a definition.

    Args:
        definition: What it computes.
        types: The number types of its values.
        make: What makes a kernel of the definition, and of a node's attributes.
        provider: The ONNX Runtime provider that it runs on.
    """
    defaults: dict[str, Attribute] = dict.fromkeys(definition.operator.attributes, 0)
    defaults |= dict.fromkeys(definition.scales, 0.0)  # no call may lack one: 0 is refused
    return Operator(
        name=definition.name,
        inputs=tuple(types[kind] for kind in definition.input_kinds),
        outputs=tuple(types[kind] for kind in definition.output_kinds),
        make=partial(make, definition),
        attributes=defaults,
        provider=provider,
    )


def _make(definition: Definition, attributes: Mapping[str, Attribute]) -> FusedKernel:
    return FusedKernel(_opening.kernels, definition, dict(attributes))

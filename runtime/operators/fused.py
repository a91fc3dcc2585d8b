"""Gives sessions of ONNX Runtime on a CUDA device the kernels of fused operators."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from ...engine.errors import ExecutorError
from ..device.cuda import Cuda, Handle
from .catalogue import DEFINITIONS, DOMAIN, OPERATORS
from .cuda.attention import Attention
from .cuda.computing import Computing, Kernels
from .cuda.device import KernelDevice
from .cuda.products import Products
from .cuda.tensors import Tensors
from .definition import Definition, Kind
from .failures import raising_whole
from .kernels import Attribute, Call, Operator
from .library import Domain

CUDA = "CUDAExecutionProvider"
_TYPES = {Kind.OWN: "bf16", Kind.FLOAT32: "fp32", Kind.FP8: "fp8"}
_opening = threading.local()
"""Holds the kernels of the session that this thread is making."""


@dataclass(frozen=True, slots=True)
class FusedKernel:
    """Computes one node of a session."""

    kernels: Kernels
    definition: Definition
    attributes: Mapping[str, Attribute]

    def __call__(self, call: Call) -> None:
        stream, own = call.stream, self.kernels.device.stream_address
        if stream != own:
            raise ExecutorError(f"{self.definition.name} runs on stream {stream:#x}, and its kernels on {own:#x}")
        Computing(self.kernels, self.definition, Tensors(self.definition, call, self.attributes)).run()


class FusedOperators:
    """Holds the kernels of an executor on a device.

    Args:
        cuda: The device.
        stream: The stream that sessions run on.
        architecture: What its kernels are compiled for: "sm_90".
        without: The names in the catalogue of operators whose bodies run instead, in all their formats.

    Raises:
        MissingDependencyError: A package of the extra `fused` is missing.
        ValueError: There is no operator of a name.
    """

    def __init__(
        self, cuda: Cuda, stream: Handle, architecture: str, *, without: AbstractSet[str] = frozenset()
    ) -> None:
        unknown = sorted(without - OPERATORS.keys())
        if unknown:
            raise ValueError(f"no fused operator is named {', '.join(unknown)}; they are {', '.join(OPERATORS)}")
        self._without = without
        device = KernelDevice(cuda, stream, architecture)
        products = Products(device)
        self._kernels = Kernels(device=device, products=products, attention=Attention(device))

    @contextmanager
    def opening(self, options: Any) -> Iterator[None]:
        """Give the session that is made meanwhile, with these options, the kernels."""
        ours = domain()
        kept = [one for one in ours.operators if DEFINITIONS[one.name].operator.name not in self._without]
        ours.add_to(options, kept)
        _opening.kernels = self._kernels
        try:
            with raising_whole():
                yield
        finally:
            del _opening.kernels

    @property
    def size_bytes(self) -> int:
        """The bytes of device memory that kernels share."""
        return self._kernels.device.size_bytes

    def close(self) -> None:
        """Free what the kernels hold. No session that has them may run any more."""
        self._kernels.close()


@cache
def domain() -> Domain:
    """Return the process's domain of fused operators."""
    made = Domain(DOMAIN)
    made.add(*(_operator(definition) for definition in DEFINITIONS.values()))
    return made


def _operator(definition: Definition) -> Operator:
    defaults: dict[str, Attribute] = dict.fromkeys(definition.operator.attributes, 0)
    defaults |= dict.fromkeys(definition.scales, 0.0)  # no call may lack one: 0 is refused
    return Operator(
        name=definition.name,
        inputs=tuple(_TYPES[kind] for kind in definition.input_kinds),
        outputs=tuple(_TYPES[kind] for kind in definition.output_kinds),
        make=partial(_make, definition),
        attributes=defaults,
        provider=CUDA,
    )


def _make(definition: Definition, attributes: Mapping[str, Attribute]) -> FusedKernel:
    return FusedKernel(_opening.kernels, definition, dict(attributes))

"""Says what an operator of our own is: its types, its attributes, and kernels that get addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ctypes import c_int64
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ...engine.number_types import NUMBER_TYPES
from .ort_api import MAX_RANK, Api

ELEMENT_TYPES = tuple(name for name in NUMBER_TYPES if name not in ("nvfp4", "fp8_e8m0"))
"""The names of the number types that inputs and outputs may have: those whose values ONNX Runtime stores one by one."""
Attribute = float | int | str
"""The values that a node's attributes may have."""


class Input(NamedTuple):
    """Holds a tensor that a kernel was called with. Its memory is the kernel's to read while it is called."""

    address: int
    shape: tuple[int, ...]


class Call:
    """Gives a kernel the tensors of one call. It must not be used when the kernel has returned."""

    __slots__ = ("_api", "_context", "inputs")

    def __init__(self, api: Api, context: int, num_inputs: int) -> None:
        self._api, self._context = api, context
        self.inputs = tuple(Input(*one) for one in api.inputs(context, num_inputs, _check_rank))

    def output(self, index: int, shape: tuple[int, ...]) -> int:
        """Allocate an output, and return its address; every output must be."""
        _check_rank(f"output {index}", len(shape))
        extents = (c_int64 * len(shape))(*shape)
        value = self._api.address("KernelContext_GetOutput", self._context, index, extents, len(shape))
        return self._api.address("GetTensorMutableData", value)

    @property
    def stream(self) -> int:
        """The CUDA stream that the session runs on; 0 on the CPU."""
        return self._api.address("KernelContext_GetGPUComputeStream", self._context)


def _check_rank(what: str, rank: int) -> None:
    if rank > MAX_RANK:
        raise ValueError(f"{what} has {rank} dimensions; at most {MAX_RANK} are possible")


class Kernel(Protocol):
    """Computes one node of a session, for which it was made. It may keep from call to call what it prepared.

    A kernel that has a method `close` is closed when the session goes. Runs of a session at the same time call it at
    the same time.
    """

    def __call__(self, call: Call, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operator:
    """Describes an operator for one list of element types. Others of its name may have other types.

    Attributes:
        name: The name within its domain.
        inputs: The element types of its inputs, each one of ELEMENT_TYPES.
        outputs: The element types of its outputs.
        make: What makes a kernel of a node's attributes, once for each session.
        attributes: Every attribute with its default; `make` gets those that a node lacks from here.
        provider: The ONNX Runtime provider that it runs on.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    make: Callable[[Mapping[str, Attribute]], Kernel]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    provider: str = "CPUExecutionProvider"

    def __post_init__(self) -> None:
        unknown = sorted({*self.inputs, *self.outputs} - set(ELEMENT_TYPES))
        if unknown:
            raise ValueError(f"{self.name}: no operator can have {', '.join(unknown)}; {', '.join(ELEMENT_TYPES)} can")
        for name, default in self.attributes.items():
            if isinstance(default, bool) or not isinstance(default, float | int | str):
                raise ValueError(
                    f"{self.name}: the attribute {name} is a {type(default).__name__}, no float, int or str"
                )

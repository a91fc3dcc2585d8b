"""Describes what components hand over: types that they compute in, types of tensors, and ports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .number_types import NUMBER_TYPES, NumberType


class Precision(str, Enum):
    """Names the floating-point type that a component computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def item_bytes(self) -> int:
        return self.number.bits // 8

    @property
    def number(self) -> NumberType:
        """The number type of its values."""
        return NUMBER_TYPES[self.value]


_ELEMENTS = {one.torch: one for one in NUMBER_TYPES.values() if one.bits >= 8}


class ElementType(str, Enum):
    """Names the type of a tensor at a component's border."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT32 = "int32"
    UINT8 = "uint8"
    ACTIVATION = "activation"
    """The type that the component computes in."""

    @property
    def item_bytes(self) -> int:
        """The bytes of one element of a concrete type."""
        return self.number.bits // 8

    @property
    def number(self) -> NumberType:
        """The number type of a concrete type."""
        return _ELEMENTS[self.value]

    def resolve(self, precision: Precision) -> ElementType:
        """Return the concrete type in a graph of this precision."""
        if self is not ElementType.ACTIVATION:
            return self
        return ElementType(precision.number.torch)


@dataclass(frozen=True, slots=True)
class Port:
    """Describes an input or output of a component.

    Attributes:
        name: What it is called in the graph.
        element_type: The type of its elements.
        dims: Its dimensions. Each is dynamic ("n"), a multiple of a dynamic one ("16*h"), a constant of the model, or a
            number.
        since: The first schema of bundles whose graphs have it; 0 if all have.
        feature: The feature of bundles whose graphs have it; "" if it takes none.
        kept: True if no request gives it: its values stay, in one place, until an executor is given others.
    """

    name: str
    element_type: ElementType
    dims: tuple[str, ...]
    since: int = 0
    feature: str = ""
    kept: bool = False

"""Compares what a session or an engine says of its inputs and outputs with the component table.

Buffers are made by the bundle's manifest and bound by address, so a graph that reads or writes other types or shapes
than the manifest says would reach beyond them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...engine.bundle.bundle import Bundle

DYNAMIC = -1
"""The extent of a dimension that is not fixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortType:
    """Describes an input or output as a library does.

    Attributes:
        output: True for an output.
        element_type: The type of its elements, in our own name (`NumberType.name`) or the library's for one we lack.
        shape: Its extents; `DYNAMIC` where any will do.
    """

    output: bool
    element_type: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        extents = ", ".join("any" if extent == DYNAMIC else str(extent) for extent in self.shape)
        return f"{'output' if self.output else 'input'} {self.element_type} [{extents}]"

    def agrees(self, other: PortType) -> bool:
        """Return whether both are the same in what both know: a plan for one size has numbers for names."""
        return (
            (self.output, self.element_type, len(self.shape)) == (other.output, other.element_type, len(other.shape))
            and all(DYNAMIC in pair or pair[0] == pair[1] for pair in zip(self.shape, other.shape, strict=True))
        )  # fmt: skip


def wanted_ports(bundle: Bundle, component: str) -> dict[str, PortType]:
    """Return the inputs and outputs by which buffers for a component are made."""
    ports, precision, dims = bundle.component(component), bundle.graph(component).precision, bundle.manifest.model.dims
    return {
        port.name: PortType(
            output=output,
            element_type=port.element_type.resolve(precision).number.name,
            shape=fixed(dims.resolve(port.dims)),
        )
        for output, listed in ((False, ports.inputs), (True, ports.outputs))
        for port in listed
    }


def fixed(dims: Sequence[Any]) -> tuple[int, ...]:
    """Return a shape with `DYNAMIC` in the place of names and of what a library does not know."""
    return tuple(extent if isinstance(extent, int) and extent >= 0 else DYNAMIC for extent in dims)


def disagreements(wanted: Mapping[str, PortType], found: Mapping[str, PortType]) -> Iterator[str]:
    """Say in words each input or output that is not as it is wanted."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in wanted or name not in found or not wanted[name].agrees(found[name]):
            yield f"{name} is {found.get(name, 'missing')}, not {wanted.get(name, 'there')}"

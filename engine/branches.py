"""Says how the low-rank matrices of swapped LoRAs are packed, as inputs of the components whose layers they change.

A layer y = x W^T gets a branch, y + (x A) B. All A of layers with the same number of inputs are the rows of one input
of their component, (layers * inputs, rank), and all B of layers with the same number of outputs those of another,
(layers * rank, outputs), so that each layer's matrix is contiguous and lies as a product takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Annotated

from msgspec import Meta

from .components import ElementType, Port
from .documents import Extent, Text

MAX_RANK = 1024
"""The largest rank of a branch; FLUX.1 Kontext's largest layers have 3072 inputs."""
MAX_LAYERS = 10_000
"""The most layers of a component that have branches; FLUX.1 Kontext's denoiser has 420."""
MAX_VALUES = 1 << 32
"""The most values of all matrices of a component: an executor makes room for them before it opens the graph."""
WIDEST = 32
"""The number of pieces that one Split gives at most, as `export.networks.layers.WIDEST` says why."""
DOWN, UP = "lora_down", "lora_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchedLayer:
    """Describes a linear layer that has a branch, by its name in the graph and the extents of its weight."""

    name: Text
    inputs: Extent
    outputs: Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Describes an input that holds matrices of several layers, all of one shape, one below the other.

    Attributes:
        name: The input's name.
        layers: The names of the layers, in the order of their matrices.
        rows: The rows of each matrix.
        columns: The columns of each.
        pieces: The matrices that there is room for; those beyond the layers are never read.
        groups: The equal groups that a graph splits them into first, so that no Split has more than `WIDEST` pieces.
    """

    name: str
    layers: tuple[str, ...]
    rows: int
    columns: int

    @property
    def groups(self) -> int:
        return ceil(len(self.layers) / WIDEST)

    @property
    def pieces(self) -> int:
        return self.groups * ceil(len(self.layers) / self.groups)

    @property
    def shape(self) -> tuple[int, int]:
        return self.pieces * self.rows, self.columns

    @property
    def port(self) -> Port:
        rows, columns = self.shape
        return Port(self.name, ElementType.ACTIVATION, (str(rows), str(columns)), kept=True)

    def row(self, layer: str) -> int:
        """Return the first row of a layer's matrix."""
        return self.layers.index(layer) * self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """Says which layers of a bundle's components have branches, in the order of their graphs, and of what rank."""

    rank: Annotated[int, Meta(ge=1, le=MAX_RANK)]
    layers: Mapping[Text, Annotated[tuple[BranchedLayer, ...], Meta(max_length=MAX_LAYERS)]]

    def packed(self, component: str) -> tuple[Packed, ...]:
        """Return the inputs that hold a component's matrices, those of A first; none if it has no branches."""
        return _packed(self.layers.get(component, ()), self.rank)

    def values(self, component: str) -> int:
        """Return the number of values of all these inputs."""
        return sum(rows * columns for rows, columns in (one.shape for one in self.packed(component)))


@lru_cache(maxsize=16)
def _packed(layers: tuple[BranchedLayer, ...], rank: int) -> tuple[Packed, ...]:
    by_inputs: dict[int, list[str]] = {}
    by_outputs: dict[int, list[str]] = {}
    for layer in layers:
        by_inputs.setdefault(layer.inputs, []).append(layer.name)
        by_outputs.setdefault(layer.outputs, []).append(layer.name)
    downs = (
        Packed(name=f"{DOWN}_{width}", layers=tuple(names), rows=width, columns=rank)
        for width, names in by_inputs.items()
    )
    ups = (
        Packed(name=f"{UP}_{width}", layers=tuple(names), rows=rank, columns=width)
        for width, names in by_outputs.items()
    )
    return (*downs, *ups)

"""Packs what LoRA files change into the matrices of a bundle's branches, and refuses what no branch can add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..engine.branches import DOWN, MAX_RANK, BranchedLayer, Branches, Packed
from ..engine.components import ElementType, Precision
from ..engine.errors import LoraError
from ..engine.lora.changes import Change, LoraFile, LowRank, Matrix
from ..engine.lora.fit import PARTS, change_shape
from .flow.noise import rounded
from .flow.workspace import Array

SUFFIX = ".weight"
ScaledFile = tuple[LoraFile, float]
"""A file that was read, and the scale that a user gave it."""
_Pieces = Mapping[str, Sequence[tuple[Matrix, Matrix]]]
"""The down (rank, inputs) and up (outputs, rank) of each layer, every scale in the latter."""


def pack(files: Sequence[ScaledFile], branches: Branches, precision: Precision) -> dict[str, dict[str, Array]]:
    """Return the matrices of branches that add what files change: by component, and by the name of its input.

    Several files' matrices of one layer lie one after another along the rank. Layers that no file changes are zero.

    Args:
        files: The files and their scales.
        branches: The bundle's branches.
        precision: The type of their values.

    Raises:
        LoraError: A file changes what has no branch, or other than by low-rank matrices; the files' ranks of a layer
            are more than there is room for; or values are too large for the type.
    """
    layers = {layer.name: layer for listed in branches.layers.values() for layer in listed}
    pieces = _pieces(files, layers)
    _check_ranks(pieces, branches.rank, files)
    return {
        component: {one.name: _matrices(one, pieces, branches.rank, precision) for one in branches.packed(component)}
        for component in branches.layers
    }


def _pieces(files: Iterable[ScaledFile], layers: Mapping[str, BranchedLayer]) -> _Pieces:
    pieces: dict[str, list[tuple[Matrix, Matrix]]] = {}
    for file, scale in files:
        for change in file.changes:
            low = _low_rank(file, change, layers)
            with np.errstate(over="ignore", invalid="ignore"):  # what it gives is looked at
                up = low.up * np.float32(low.scale * scale)
            pieces.setdefault(low.place.tensor.removesuffix(SUFFIX), []).append((low.down, up))
    return pieces


def _low_rank(file: LoraFile, change: Change, layers: Mapping[str, BranchedLayer]) -> LowRank:
    """Return a change that a branch can add. Raises LoraError for any other, and says whether fusing can."""
    place, cure = change.place, f"fuse it: kontext-trt lora fuse BUNDLE {file.name} OUT"
    where = f"{place.tensor} of {PARTS[place.part]}"
    if place.part != "transformer":
        raise LoraError(f"{file.name} changes {where}, and only the transformer's layers have branches; {cure}")
    if not isinstance(change, LowRank):
        raise LoraError(
            f"{file.name} changes {where} by {change.kind}, which is no pair of low-rank matrices and cannot be "
            f"swapped in; {cure}"
        )
    layer = layers.get(place.tensor.removesuffix(SUFFIX)) if place.tensor.endswith(SUFFIX) else None
    if layer is None:
        raise LoraError(
            f"{file.name} changes {where}, which is no linear layer of this bundle: it is for a model of other layers"
        )
    if change_shape(change) != (layer.outputs, layer.inputs):
        raise LoraError(
            f"{file.name} changes {where} by {list(change_shape(change))}, and this bundle's is "
            f"{[layer.outputs, layer.inputs]}: it is for a model of another width"
        )
    return change


def _check_ranks(pieces: _Pieces, rank: int, files: Sequence[ScaledFile]) -> None:
    """Raise LoraError if a layer's matrices together are of a higher rank than its branch."""
    ranks = {name: sum(down.shape[0] for down, _ in listed) for name, listed in pieces.items()}
    largest = max(ranks, key=lambda name: ranks[name], default=None)
    if largest is not None and ranks[largest] > rank:
        names, need = " and ".join(file.name for file, _ in files), "need" if len(files) > 1 else "needs"
        again = f"export it with --lora-rank {ranks[largest]}, or fuse" if ranks[largest] <= MAX_RANK else "fuse"
        raise LoraError(
            f"{names} {need} a rank of {ranks[largest]} (of {largest}), and this bundle's branches have {rank}; "
            f"{again}: kontext-trt lora fuse BUNDLE FILE OUT"
        )


def _matrices(packed: Packed, pieces: _Pieces, rank: int, precision: Precision) -> Array:
    """Return one input of a component."""
    whole = np.zeros(packed.shape, np.float32)
    is_down = packed.name.startswith(DOWN)
    for number, layer in enumerate(packed.layers):
        rows, start = whole[number * packed.rows : (number + 1) * packed.rows], 0
        for down, up in pieces.get(layer, ()):
            stop = start + down.shape[0]
            if is_down:
                rows[:, start:stop] = down.T
            else:
                rows[start:stop] = up.T
            start = stop
    return _typed(whole, precision)


def _typed(values: Matrix, precision: Precision) -> Array:
    """Round values to a type, BF16 as its bits. Raises LoraError for those that it cannot hold."""
    with np.errstate(over="ignore"):  # what it gives is looked at
        narrow = rounded(values, precision)
    if not np.isfinite(narrow).all():
        raise LoraError(
            f"the LoRAs have values beyond what {precision.value} holds, or that are no numbers; give a smaller scale, "
            "or export the bundle in bf16"
        )
    if precision is Precision.BF16:
        return (narrow.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return narrow.astype(ElementType.ACTIVATION.resolve(precision).number.numpy)

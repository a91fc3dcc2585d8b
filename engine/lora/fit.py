"""Compares what a LoRA file changes with a model's tensors, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import LoraError
from .changes import Change, LoraFile, LowRank, Magnitude, Place

PARTS = {"transformer": "the transformer", "clip": "CLIP", "t5": "T5"}


def check_fit(file: LoraFile, shapes: Mapping[Place, tuple[int, ...]]) -> None:
    """Raise LoraError unless every change of a file fits the tensor that it is of.

    Args:
        file: The file, as it was read.
        shapes: The shapes of all tensors of the model.
    """
    for change in file.changes:
        shape = shapes.get(change.place)
        if shape is None:
            raise LoraError(
                f"{file.name} changes {change.place.tensor} of {PARTS[change.place.part]}, which this model does not "
                "have: it is for a model of other depth or layers"
            )
        if not _fits(change, shape):
            raise LoraError(
                f"{file.name} changes {change.place.tensor} of {PARTS[change.place.part]} by "
                f"{list(change_shape(change))}, and this model's is {list(shape)}: it is for a model of another width"
            )


def change_shape(change: Change) -> tuple[int, ...]:
    """Return the shape of what a change adds to, replaces, or scales by."""
    if isinstance(change, LowRank):
        return (change.up.shape[0], change.down.shape[1])
    return change.values.shape


def _fits(change: Change, shape: tuple[int, ...]) -> bool:
    if isinstance(change, Magnitude):
        return len(shape) == 2 and change.values.shape in ((shape[0], 1), (1, shape[1]))
    return change_shape(change) == shape

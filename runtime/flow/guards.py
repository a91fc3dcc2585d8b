"""Checks that what a stage gives is finite: which tensors are looked at, and how a failure is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ...engine.components import ElementType, Precision
from ...engine.errors import NotFiniteError
from .stages import Condition, Decode, EncodeReference, EncodeText, Stage, Step
from .tensors import ENCODED_TEXT, RequestShape, TensorSpec, latents_before, reference_name
from .workspace import Array

BFLOAT16_EXPONENT = 0x7F80


def nonfinite_count(array: Array, element_type: ElementType = ElementType.FLOAT32) -> int:
    """Count the values that are NaN or infinite. A bfloat16 array holds the values' bits, as uint16."""
    if element_type is ElementType.BFLOAT16:
        return int(np.count_nonzero((array & BFLOAT16_EXPONENT) == BFLOAT16_EXPONENT))
    return int(array.size - np.count_nonzero(np.isfinite(array)))


def checked_tensors(stage: Stage, shape: RequestShape, *, every_step: bool) -> tuple[str, ...]:
    """Return the names of the tensors that show whether a stage went well."""
    match stage:
        case EncodeText():
            return ENCODED_TEXT
        case EncodeReference(reference):
            return (reference_name(reference),)
        case Condition():
            return ("modulation", "text_tokens", "reference_tokens") if every_step else ()
        case Decode():
            return ("picture_means",)
        case Step(0):
            return ("first_latents", latents_before(1)) if shape.num_steps == 1 else ("first_latents",)
        case Step(index):
            return (latents_before(index + 1),) if every_step or index == shape.num_steps - 1 else ()


def check(
    stage: Stage,
    shape: RequestShape,
    arrays: Mapping[str, Array],
    specs: Mapping[str, TensorSpec],
    precisions: Mapping[str, Precision],
    *,
    every_step: bool,
) -> None:
    """Raise NotFiniteError, naming component and step, if what a stage gave is not finite.

    `precisions` holds the type of each component's graph: only for fp16 is another the likely cure.
    """
    for component, name in _outputs(stage, shape, every_step=every_step):
        array = arrays[name]
        if isinstance(stage, EncodeText):
            array = array[stage.prompt]
        count = nonfinite_count(array, specs[name].element_type)
        if count:
            place = _place(stage, component, shape)
            message = f"{place}: {count:,} of {array.size:,} values are NaN or infinite"
            if precisions[component] is Precision.FP16:
                message += "; a graph in bf16 or fp32 instead of fp16 usually cures this"
            raise NotFiniteError(message)


def _outputs(stage: Stage, shape: RequestShape, *, every_step: bool) -> Iterator[tuple[str, str]]:
    """Return the pairs (component, tensor) that are checked."""
    names = checked_tensors(stage, shape, every_step=every_step)
    # text has an encoder per tensor; in the other stages one component made them all
    components = stage.components if isinstance(stage, EncodeText) else stage.components * len(names)
    return zip(components, names, strict=True)


def _place(stage: Stage, component: str, shape: RequestShape) -> str:
    if isinstance(stage, Step):
        return f"{component}, step {stage.index + 1} of {shape.num_steps}"
    if isinstance(stage, EncodeText) and shape.num_prompts > 1:
        return f"{component}, prompt {stage.prompt + 1}"
    if isinstance(stage, EncodeReference) and len(shape.references) > 1:
        return f"{component}, reference {stage.reference + 1}"
    return f"{component}, mean of the picture" if isinstance(stage, Decode) else component

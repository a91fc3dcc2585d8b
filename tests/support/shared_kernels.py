"""Calls kernels that share an operator's work with other ranks, and the whole operator's body, with arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from fused_models import Sizes, arrays, attributes

from kontext_trt.engine.number_types import NUMBER_TYPES
from kontext_trt.runtime.operators.cpu.bodies import TYPES, definition_session
from kontext_trt.runtime.operators.cpu.memory import value_of
from kontext_trt.runtime.operators.definition import Definition, Kind
from kontext_trt.runtime.operators.kernels import Attribute, Input

Values = dict[str, np.ndarray]


def drawn(definition: Definition, sizes: Sizes) -> tuple[Values, dict[str, Attribute]]:
    """Random inputs of an operator in the types that it has on the CPU, and attributes."""
    found: Values = {}
    kinds = dict(zip(definition.inputs, definition.input_kinds, strict=True))
    for name, array in arrays(definition, sizes).items():
        fp8 = kinds[name] is Kind.FP8
        found[name] = array.astype(ml_dtypes.float8_e4m3fn).view(np.uint8) if fp8 else np.ascontiguousarray(array)
    return found, dict(attributes(definition, sizes))


class Called:
    """What a kernel is called with: its inputs, and room for its outputs."""

    stream = 0

    def __init__(self, definition: Definition, inputs: tuple[Input, ...]) -> None:
        self.inputs, self._definition = inputs, definition
        self.outputs: dict[int, np.ndarray] = {}

    def output(self, index: int, shape: tuple[int, ...]) -> int:
        kind = self._definition.output_kinds[index]
        self.outputs[index] = np.full(shape, 77, NUMBER_TYPES[TYPES[kind]].numpy)
        return self.outputs[index].ctypes.data


def given(definition: Definition, values: Mapping[str, np.ndarray]) -> tuple[Input, ...]:
    return tuple(Input(values[name].ctypes.data, values[name].shape) for name in definition.inputs)


def called(kernel: Any, definition: Definition, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a kernel, in their order."""
    values = {name: np.ascontiguousarray(array) for name, array in values.items()}
    call = Called(definition, given(definition, values))
    kernel(call)
    return [call.outputs[index] for index in range(len(definition.operator.outputs))]


def whole_body(
    definition: Definition, attributes: Mapping[str, Attribute], values: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """What the operator's body gives."""
    values = {name: np.ascontiguousarray(array) for name, array in values.items()}
    found: list[np.ndarray] = []
    for output, kind in zip(definition.operator.outputs, definition.output_kinds, strict=True):
        q = values.get("q", values.get("queried", values.get("image")))
        assert q is not None
        rows, width = q.shape[1], q.shape[2]
        if definition.operator.name == "JointHeads":
            rows += values["text"].shape[1]
        elif output in ("k", "v"):
            rows = values["x"].shape[1]
        for product in definition.operator.products if definition.operator.attention else ():
            width += values[product.weight].shape[0]
        found.append(np.empty((q.shape[0], rows, width), NUMBER_TYPES[TYPES[kind]].numpy))
    session = definition_session(definition, attributes, 1)
    places = {name: value_of(array) for name, array in zip(definition.operator.outputs, found, strict=True)}
    session({name: value_of(array) for name, array in values.items()}, places)
    return found

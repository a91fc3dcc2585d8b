"""Describes operators to ONNX Runtime: their types, and the callbacks that make, call and close kernels."""

from __future__ import annotations

import ctypes
import itertools
import logging
from collections.abc import Callable
from ctypes import byref, c_float, c_int64, c_size_t
from typing import Any

from ...engine.errors import ExecutorError
from ...engine.number_types import NUMBER_TYPES
from .failures import failure_text
from .kernels import Attribute, Call, Kernel, Operator
from .ort_api import API_VERSION, Api, OrtCustomOp

logger = logging.getLogger(__name__)

_LAST_VERSION = 2**31 - 1


class Description:
    """Holds what ONNX Runtime is told of an operator, and the kernels that sessions have of it."""

    def __init__(self, api: Api, operator: Operator) -> None:
        self._api, self._operator = api, operator
        self._numbers = itertools.count(1)  # a kernel's in ONNX Runtime; 0 would be no kernel
        self._kernels: dict[int, Kernel] = {}
        self._name = ctypes.create_string_buffer(operator.name.encode())
        self._provider = ctypes.create_string_buffer(operator.provider.encode())
        inputs = [NUMBER_TYPES[name].onnx_number for name in operator.inputs]
        outputs = [NUMBER_TYPES[name].onnx_number for name in operator.outputs]
        answers: dict[str, Callable[..., Any]] = {
            "GetName": lambda _: ctypes.addressof(self._name),
            "GetExecutionProviderType": lambda _: ctypes.addressof(self._provider),
            "GetInputType": lambda _, index: inputs[index],
            "GetInputTypeCount": lambda _: len(inputs),
            "GetOutputType": lambda _, index: outputs[index],
            "GetOutputTypeCount": lambda _: len(outputs),
            "KernelDestroy": self._destroy,
            "GetInputCharacteristic": lambda _, index: 0,  # required
            "GetOutputCharacteristic": lambda _, index: 0,
            "GetInputMemoryType": lambda _, index: 0,  # the provider's
            "GetVariadicInputMinArity": lambda _: 1,
            "GetVariadicInputHomogeneity": lambda _: 1,
            "GetVariadicOutputMinArity": lambda _: 1,
            "GetVariadicOutputHomogeneity": lambda _: 1,
            "CreateKernelV2": self._create,
            "KernelComputeV2": self._compute,
            "GetStartVersion": lambda _: 1,
            "GetEndVersion": lambda _: _LAST_VERSION,
        }
        types: dict[str, Any] = {slot: kind for slot, kind, *_ in OrtCustomOp._fields_}
        self.structure = OrtCustomOp(API_VERSION, **{slot: types[slot](answer) for slot, answer in answers.items()})

    # What a callback raises is printed by ctypes and taken for success by ONNX Runtime, so nothing leaves one.

    def _create(self, _operator: int, _api: int, info: int, kernel: Any) -> int | None:
        try:
            attributes = {
                name: _attribute(self._api, info, name, default) for name, default in self._operator.attributes.items()
            }
            number = next(self._numbers)
            self._kernels[number] = self._operator.make(attributes)
            kernel[0] = number
            return None
        except BaseException as error:
            return self._api.failure(failure_text(self._operator.name, error))

    def _compute(self, kernel: int, context: int) -> int | None:
        try:
            self._kernels[kernel](Call(self._api, context, len(self._operator.inputs)))
            return None
        except BaseException as error:
            return self._api.failure(failure_text(self._operator.name, error))

    def _destroy(self, kernel: int) -> None:
        # at the interpreter's end this module's names are gone before the last session is: only `self` is left
        closing = getattr(self._kernels.pop(kernel, None), "close", None)
        if closing is not None:
            try:
                closing()
            except BaseException as error:
                logger.warning("%s was not closed: %s: %s", self._operator.name, type(error).__name__, error)


def _attribute(api: Api, info: int, name: str, default: Attribute) -> Attribute:
    """Return a node's attribute of the default's type; the default if there is none of this name."""
    for kind, read in _READERS.items():
        try:
            value = read(api, info, name.encode())
        except ExecutorError:  # ONNX Runtime says in words alone whether it is missing or of another type
            continue
        if kind is type(default):
            return value
        raise ExecutorError(
            f"the attribute {name} is {value!r}, of type {kind.__name__}; {type(default).__name__} is wanted"
        )
    return default


def _read_float(api: Api, info: int, name: bytes) -> float:
    value = c_float()
    api.call("KernelInfoGetAttribute_float", info, name, byref(value))
    return value.value


def _read_int(api: Api, info: int, name: bytes) -> int:
    value = c_int64()
    api.call("KernelInfoGetAttribute_int64", info, name, byref(value))
    return value.value


def _read_string(api: Api, info: int, name: bytes) -> str:
    size = c_size_t()
    api.call("KernelInfoGetAttribute_string", info, name, None, byref(size))
    text = ctypes.create_string_buffer(size.value)
    api.call("KernelInfoGetAttribute_string", info, name, text, byref(size))
    return text.raw[:-1].decode()


_READERS = {float: _read_float, int: _read_int, str: _read_string}

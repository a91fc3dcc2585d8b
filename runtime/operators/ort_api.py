"""Calls ONNX Runtime's C interface: what operators of our own need of it.

Releases append to the table OrtApi and never move what is in it (onnxruntime_c_api.cc asserts the offsets).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, POINTER, PYFUNCTYPE, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

from ...engine.errors import ExecutorError

API_VERSION = 18
"""The version of the interface that is asked for; every newer ONNX Runtime has it."""
MAX_RANK = 8
"""The most dimensions that a tensor may have."""
_FAIL = 1
_SLOTS = {
    "CreateStatus": (0, c_void_p, (c_int, c_char_p)),
    "GetErrorMessage": (2, c_char_p, (c_void_p,)),
    "CreateCustomOpDomain": (26, c_void_p, (c_char_p, c_void_p)),
    "CustomOpDomain_Add": (27, c_void_p, (c_void_p, c_void_p)),
    "AddCustomOpDomain": (28, c_void_p, (c_void_p, c_void_p)),
    "GetTensorMutableData": (51, c_void_p, (c_void_p, c_void_p)),
    "GetDimensionsCount": (61, c_void_p, (c_void_p, c_void_p)),
    "GetDimensions": (62, c_void_p, (c_void_p, c_void_p, c_size_t)),
    "GetTensorTypeAndShape": (65, c_void_p, (c_void_p, c_void_p)),
    "KernelInfoGetAttribute_float": (85, c_void_p, (c_void_p, c_char_p, c_void_p)),
    "KernelInfoGetAttribute_int64": (86, c_void_p, (c_void_p, c_char_p, c_void_p)),
    "KernelInfoGetAttribute_string": (87, c_void_p, (c_void_p, c_char_p, c_void_p, c_void_p)),
    "KernelContext_GetInput": (90, c_void_p, (c_void_p, c_size_t, c_void_p)),
    "KernelContext_GetOutput": (91, c_void_p, (c_void_p, c_size_t, c_void_p, c_size_t, c_void_p)),
    "ReleaseStatus": (93, None, (c_void_p,)),
    "ReleaseTensorTypeAndShapeInfo": (99, None, (c_void_p,)),
    "KernelContext_GetGPUComputeStream": (193, c_void_p, (c_void_p, c_void_p)),
}
"""The position, result and arguments of each function in OrtApi."""


class Api:
    """Holds ONNX Runtime's functions, from the address of its OrtApiBase."""

    def __init__(self, base: int) -> None:
        get = CFUNCTYPE(c_void_p, c_uint32)(ctypes.cast(base, POINTER(c_void_p))[0] or 0)
        table = get(API_VERSION)
        if not table:
            raise ExecutorError(f"ONNX Runtime lacks version {API_VERSION} of its C interface; install a newer one")
        slots = ctypes.cast(table, POINTER(c_void_p))
        # PYFUNCTYPE keeps the GIL: none of these waits for another thread
        self._functions = {
            name: PYFUNCTYPE(result, *arguments)(slots[position] or 0)
            for name, (position, result, arguments) in _SLOTS.items()
        }

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns a status.

        Raises:
            ExecutorError: It failed; in ONNX Runtime's words.
        """
        self._check(self._functions[name](*arguments))

    def _check(self, status: int | None) -> None:
        if status:
            words = self._functions["GetErrorMessage"](status).decode(errors="replace")
            self._functions["ReleaseStatus"](status)
            raise ExecutorError(words)

    def address(self, name: str, *arguments: Any) -> int:
        """Call a function that returns a status and writes an address to its last argument; return the address."""
        written = c_void_p()
        self.call(name, *arguments, byref(written))
        return written.value or 0

    def inputs(
        self, context: int, count: int, check_rank: Callable[[str, int], None]
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield address and shape of each input of a kernel's call; `check_rank` is told what it is of, and its rank.

        It is called for every input of every node, so it spares what it can.
        """
        named = self._functions
        get, tensor, data = (
            named[name] for name in ("KernelContext_GetInput", "GetTensorTypeAndShape", "GetTensorMutableData")
        )
        get_rank, get_extents, release = (
            named[name] for name in ("GetDimensionsCount", "GetDimensions", "ReleaseTensorTypeAndShapeInfo")
        )
        value, info, address, rank, extents = c_void_p(), c_void_p(), c_void_p(), c_size_t(), (c_int64 * MAX_RANK)()
        to_value, to_info, to_address, to_rank = byref(value), byref(info), byref(address), byref(rank)
        for index in range(count):
            self._check(get(context, index, to_value))
            self._check(tensor(value, to_info))
            try:
                self._check(get_rank(info, to_rank))
                check_rank(f"input {index}", rank.value)
                self._check(get_extents(info, extents, rank))
            finally:
                release(info)
            self._check(data(value, to_address))
            yield address.value or 0, tuple(extents[: rank.value])

    def failure(self, words: str) -> int:
        """Return a status that says what failed; ONNX Runtime releases it."""
        return self._functions["CreateStatus"](_FAIL, words.encode(errors="replace").replace(b"\0", b" "))


REGISTER = CFUNCTYPE(c_void_p, c_void_p, c_void_p)
"""The function that is given SessionOptions and OrtApiBase, and returns a status."""
_TEXT = CFUNCTYPE(c_void_p, c_void_p)  # an address: ctypes would free what a callback returns as c_char_p
_OF_INDEX = CFUNCTYPE(c_int, c_void_p, c_size_t)
_COUNT = CFUNCTYPE(c_size_t, c_void_p)
_NUMBER = CFUNCTYPE(c_int, c_void_p)


class OrtCustomOp(ctypes.Structure):
    """Describes an operator to ONNX Runtime: the struct of its C interface, as of API_VERSION."""

    _fields_ = (
        ("version", c_uint32),
        ("CreateKernel", c_void_p),
        ("GetName", _TEXT),
        ("GetExecutionProviderType", _TEXT),
        ("GetInputType", _OF_INDEX),
        ("GetInputTypeCount", _COUNT),
        ("GetOutputType", _OF_INDEX),
        ("GetOutputTypeCount", _COUNT),
        ("KernelCompute", c_void_p),
        ("KernelDestroy", CFUNCTYPE(None, c_void_p)),
        ("GetInputCharacteristic", _OF_INDEX),
        ("GetOutputCharacteristic", _OF_INDEX),
        ("GetInputMemoryType", _OF_INDEX),
        ("GetVariadicInputMinArity", _NUMBER),
        ("GetVariadicInputHomogeneity", _NUMBER),
        ("GetVariadicOutputMinArity", _NUMBER),
        ("GetVariadicOutputHomogeneity", _NUMBER),
        ("CreateKernelV2", CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_void_p))),
        ("KernelComputeV2", CFUNCTYPE(c_void_p, c_void_p, c_void_p)),
        ("InferOutputShapeFn", c_void_p),
        ("GetStartVersion", _NUMBER),
        ("GetEndVersion", _NUMBER),
        ("GetMayInplace", c_void_p),
        ("ReleaseMayInplace", c_void_p),
        ("GetAliasMap", c_void_p),
        ("ReleaseAliasMap", c_void_p),
    )

"""Computes linear layers by cuBLASLt: bias, GELU and FP8 in and out in the product's epilogue.

Each kind of product is measured once on a kind of GPU, in a run that is not recorded: the first of the heuristics'
answers is not always the fastest.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....engine.errors import ExecutorError, MissingDependencyError
from ...device.cuda import Handle
from .choices import Choices
from .device import KernelDevice
from .timing import each_milliseconds

WORKSPACE_BYTES = 64 << 20
ALGORITHMS = 8
"""The number of the heuristics' answers that are measured."""
_COMPUTE_32F = 68
"""The number of CUBLAS_COMPUTE_32F (cublas_api.h); nvmath.ComputeType counts another library's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Describes a matrix of bfloat16, E4M3 or float32 on the device: rows begin `stride` values apart."""

    address: int
    rows: int
    columns: int
    stride: int
    fp8: bool = False
    float32: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCall:
    """Describes y = x W^T + bias, and GELU of it if asked for.

    Attributes:
        x: (m, k).
        weight: (n, k), FP8 if `x` is.
        bias: The address of (n,) bfloat16; 0 for none.
        y: (m, n), float32 without a bias alone.
        addend: (m, n) bfloat16, added before the bias and GELU; None for none. It may be `y` itself, unless that is
            FP8.
        gelu: Tanh-GELU of it.
        turned: True if the weight is (k, n).
        x_scale: The address of what FP8 values of `x` are multiplied by.
        weight_scale: The address of what those of the weight are multiplied by.
        y_inverse: The address of what an FP8 result is multiplied by before it is rounded.
    """

    x: Matrix
    weight: Matrix
    bias: int
    y: Matrix
    addend: Matrix | None = None
    gelu: bool = False
    turned: bool = False
    x_scale: int = 0
    weight_scale: int = 0
    y_inverse: int = 0

    @property
    def kind(self) -> tuple[int | bool, ...]:
        """The kind that products are measured and planned by."""
        x, weight, y = self.x, self.weight, self.y
        extents = x.rows, y.columns, x.columns, x.stride, weight.stride, y.stride
        added = 0 if self.addend is None else self.addend.stride
        return *extents, x.fp8, y.fp8, y.float32, self.gelu, self.turned, bool(self.bias), added


class Products:
    """Computes linear layers on a device.

    Raises:
        MissingDependencyError: nvmath-python is not installed, or finds no cuBLAS.
    """

    def __init__(self, device: KernelDevice) -> None:
        try:
            cublaslt: Any = importlib.import_module("nvmath.bindings.cublasLt")
            types: Any = importlib.import_module("nvmath").CudaDataType
        except ImportError as error:
            raise MissingDependencyError(
                f"fused operators need nvmath-python ({error}); install it with: pip install 'kontext-trt[fused]'"
            ) from error
        self._device, self._lt, self._types = device, cublaslt, types
        self._handle: int = cublaslt.create()
        self._choices = Choices.open(device, "cuBLASLt", [cublaslt.get_version(), ALGORITHMS, WORKSPACE_BYTES])
        self._plans: dict[tuple[int | bool, ...], _Plan] = {}
        self._workspaces: dict[int, int] = {}
        self.reserve(device.stream)
        self._one, self._zero = ctypes.c_float(1.0), ctypes.c_float(0.0)

    def __call__(self, call: LinearCall, stream: Handle | None = None) -> None:
        """Enqueue a linear layer, on the executor's stream or another that has a workspace."""
        plan = self._prepared(call)
        self._set_addresses(plan, call)
        self._run(plan, call, plan.best, stream)

    def prepare(self, call: LinearCall) -> None:
        """Measure a kind of product that is new, which writes to its result: before an addend is written there."""
        self._prepared(call)

    def _prepared(self, call: LinearCall) -> _Plan:
        plan = self._plans.get(call.kind)
        if plan is None:
            plan = self._plans[call.kind] = self._make(call)
        if not plan.measured and not self._device.recording:
            self._measure(plan, call)
        return plan

    def _make(self, call: LinearCall) -> _Plan:
        lt, types = self._lt, self._types
        descriptor = lt.matmul_desc_create(_COMPUTE_32F, int(types.CUDA_R_32F))
        self._set(descriptor, "TRANSA", ctypes.c_int32(not call.turned))
        if call.bias:
            epilogue = lt.Epilogue.GELU_BIAS if call.gelu else lt.Epilogue.BIAS
            self._set(descriptor, "EPILOGUE", ctypes.c_int32(int(epilogue)))
            self._set(descriptor, "BIAS_DATA_TYPE", ctypes.c_int32(int(types.CUDA_R_16BF)))
        if call.x.fp8:
            self._set(descriptor, "FAST_ACCUM", ctypes.c_int8(1))
        # cuBLASLt counts columns first: the weight is (k, n), or (n, k) if turned, x (k, m) and y (n, m) to it
        c = call.addend or replace(call.y, fp8=False)
        layouts = (
            self._layout(call.weight, call.weight.columns, call.weight.rows),
            self._layout(call.x, call.x.columns, call.x.rows),
            self._layout(c, call.y.columns, call.y.rows),
            self._layout(call.y, call.y.columns, call.y.rows),
        )
        plan = _Plan(descriptor=descriptor, layouts=layouts, results=self._empty_results())
        self._set_addresses(plan, call)
        preference, found = lt.matmul_preference_create(), np.zeros(1, np.int32)
        limit = ctypes.c_uint64(WORKSPACE_BYTES)
        attribute = int(lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES)
        lt.matmul_preference_set_attribute(preference, attribute, ctypes.addressof(limit), 8)
        try:
            lt.matmul_algo_get_heuristic(
                self._handle, descriptor, *layouts, preference, ALGORITHMS, plan.results.ctypes.data, found.ctypes.data
            )
        except Exception as error:  # cuBLASLt's own error says no more than a status
            raise ExecutorError(f"cuBLASLt has no product for {_words(call)}: {error}") from error
        finally:
            lt.matmul_preference_destroy(preference)
        plan.count = int(found[0])
        if not plan.count:
            raise ExecutorError(f"cuBLASLt has no product for {_words(call)}")
        return plan

    def _empty_results(self) -> NDArray[Any]:
        return np.zeros(ALGORITHMS, dtype=self._lt.matmul_heuristic_result_dtype)

    def _type(self, matrix: Matrix) -> int:
        if matrix.float32:
            return int(self._types.CUDA_R_32F)
        return int(self._types.CUDA_R_8F_E4M3 if matrix.fp8 else self._types.CUDA_R_16BF)

    def _layout(self, matrix: Matrix, rows: int, columns: int) -> int:
        return self._lt.matrix_layout_create(self._type(matrix), rows, columns, matrix.stride)

    def _set(self, descriptor: int, name: str, value: Any) -> None:
        attribute = int(getattr(self._lt.MatmulDescAttribute, name))
        self._lt.matmul_desc_set_attribute(descriptor, attribute, ctypes.addressof(value), ctypes.sizeof(value))

    def _set_addresses(self, plan: _Plan, call: LinearCall) -> None:
        if call.bias:
            self._set(plan.descriptor, "BIAS_POINTER", ctypes.c_void_p(call.bias))
        if call.x.fp8:
            self._set(plan.descriptor, "A_SCALE_POINTER", ctypes.c_void_p(call.weight_scale))
            self._set(plan.descriptor, "B_SCALE_POINTER", ctypes.c_void_p(call.x_scale))
        if call.y.fp8:
            self._set(plan.descriptor, "D_SCALE_POINTER", ctypes.c_void_p(call.y_inverse))

    def reserve(self, stream: Handle) -> None:
        """Allocate what products on a stream work in: those on others may run at the same time."""
        address = self._device.cuda.stream_address(stream)
        if address not in self._workspaces:
            self._workspaces[address] = self._device.cuda.malloc(WORKSPACE_BYTES)

    def _run(self, plan: _Plan, call: LinearCall, index: int, stream: Handle | None = None) -> None:
        address = self._device.stream_address if stream is None else self._device.cuda.stream_address(stream)
        workspace = self._workspaces[address]
        added = workspace if call.y.fp8 else call.y.address  # where D is FP8, C must lie elsewhere
        if call.addend is not None:
            added = call.addend.address
        factor = self._zero if call.addend is None else self._one
        weight, x, c, y = plan.layouts
        self._lt.matmul(
            self._handle,
            plan.descriptor,
            ctypes.addressof(self._one),
            call.weight.address,
            weight,
            call.x.address,
            x,
            ctypes.addressof(factor),
            added,
            c,
            call.y.address,
            y,
            plan.results.ctypes.data + index * plan.results.dtype.itemsize,
            workspace,
            WORKSPACE_BYTES,
            address,
        )

    def _measure(self, plan: _Plan, call: LinearCall) -> None:
        """Find the fastest of a plan's algorithms."""

        def measure() -> dict[int, float]:
            self._set_addresses(plan, call)
            none_runs = f"cuBLASLt runs none of the {plan.count} algorithms that it names for {_words(call)}"
            run = partial(self._run, plan, call)
            return each_milliseconds(self._device, range(plan.count), run, self._lt.cuBLASLtError, none_runs)

        plan.best, plan.measured = self._choices.fastest(call.kind, range(plan.count), measure), True

    def close(self) -> None:
        """Free what the library and the products hold."""
        for plan in self._plans.values():
            self._lt.matmul_desc_destroy(plan.descriptor)
            for layout in plan.layouts:
                self._lt.matrix_layout_destroy(layout)
        self._plans.clear()
        for workspace in self._workspaces.values():
            self._device.cuda.free(workspace)
        self._workspaces.clear()
        self._lt.destroy(self._handle)


@dataclass(slots=True, kw_only=True)
class _Plan:
    """Holds what cuBLASLt made of a kind of product: its descriptor, layouts, and algorithms, the best of them."""

    descriptor: int
    layouts: tuple[int, int, int, int]
    results: NDArray[Any]
    count: int = 0
    best: int = 0
    measured: bool = False


def _words(call: LinearCall) -> str:
    kinds = tuple("fp8" if matrix.fp8 else "bf16" for matrix in (call.x, call.y))
    return f"({call.x.rows}, {call.x.columns}) x ({call.y.columns}, {call.x.columns}), {kinds[0]} to {kinds[1]}"

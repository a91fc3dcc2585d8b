"""Loads and launches kernels by CUDA's driver; with `cuda.py`, all that talks to cuda-python."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

from ...engine.errors import MissingDependencyError
from .cuda import Handle, cuda_error


class Launcher:
    """Makes calls of CUDA's driver on the calling thread's device. Failures raise CudaError."""

    def __init__(self) -> None:
        try:
            self._driver: Any = importlib.import_module("cuda.bindings.driver")
        except ImportError as error:
            raise MissingDependencyError(
                "cuda-python is not installed; install it with: pip install 'kontext-trt[fused]'"
            ) from error

    def _call(self, name: str, *arguments: Any) -> Any:
        code, *results = getattr(self._driver, name)(*arguments)
        if int(code):
            words = self._driver.cuGetErrorString(code)[1]
            raise cuda_error(name, code.name, words.decode() if words else "")
        return results[0] if len(results) == 1 else results

    def function(self, cubin: bytes, name: str) -> Any:
        """Load a cubin, which stays loaded as long as the process lives, and return a function of it."""
        return self._call("cuModuleGetFunction", self._call("cuModuleLoadData", cubin), name.encode())

    def launch(
        self, function: Any, grid: int, block: int, arguments: Sequence[tuple[Any, Any]], stream: Handle
    ) -> None:
        """Launch a function on a one-dimensional grid.

        Args:
            function: What `function` returned.
            grid: The number of blocks.
            block: The number of threads of each.
            arguments: Values, each with its ctypes type.
            stream: Where it is enqueued.
        """
        values, types = zip(*arguments, strict=True)
        self._call("cuLaunchKernel", function, grid, 1, 1, block, 1, 1, 0, int(stream), (values, types), 0)

    def recording(self, stream: Handle) -> bool:
        """Return whether a stream's work is recorded instead of run."""
        return int(self._call("cuStreamIsCapturing", int(stream))) != 0

    def write(self, address: int, data: bytes) -> None:
        """Copy bytes to the device, and wait for it."""
        self._call("cuMemcpyHtoD", address, data, len(data))


POINTER = ctypes.c_void_p
"""The type of an address among a kernel's arguments."""

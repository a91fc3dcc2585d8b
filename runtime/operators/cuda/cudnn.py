"""Holds cuDNN, as its frontend gives it."""

from __future__ import annotations

import importlib
from typing import Any

from ....engine.errors import MissingDependencyError
from .device import KernelDevice


class Cudnn:
    """Holds cuDNN's frontend and a handle for a device's stream.

    Raises:
        MissingDependencyError: cuDNN's frontend is not installed, or finds no cuDNN.
    """

    def __init__(self, device: KernelDevice) -> None:
        try:
            self.library: Any = importlib.import_module("cudnn")
        except ImportError as error:
            raise MissingDependencyError(
                f"fused operators need nvidia-cudnn-frontend ({error}); install it with: "
                "pip install 'kontext-trt[fused]'"
            ) from error
        self._device = device
        self._handle = self.library.create_handle()

    @property
    def handle(self) -> Any:
        """The handle, on the device's stream."""
        self.library.set_stream(handle=self._handle, stream=self._device.stream_address)
        return self._handle

    def graph(self, kind: Any) -> Any:
        """Return an empty graph of tensors of this type, which computes in float32."""
        wide = self.library.data_type.FLOAT
        return self.library.pygraph(
            io_data_type=kind, intermediate_data_type=wide, compute_data_type=wide, handle=self.handle
        )

    def close(self) -> None:
        """Free the handle, when no graph is left."""
        self.library.destroy_handle(self._handle)

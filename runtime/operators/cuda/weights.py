"""Keeps a node's weights as kernels take them, made of those in the graph when the node first runs."""

from __future__ import annotations

import ctypes

from ....engine.errors import ExecutorError
from ...device.launch import POINTER
from .convolutions import SIDE, copy_channels
from .device import KernelDevice
from .sizes import BF16_BYTES, whole_packs

PLACES = 4
"""The places that a node's weights may lie at, from run to run; constants have one."""


class NodeWeights:
    """Holds the filters and biases of one node, as long as its session is there.

    Filters are (outputs, 3, 3, inputs), as cuDNN reads those of pixels (b, h, w, c); a checkpoint has (outputs, inputs,
    3, 3). Outputs and inputs are `whole_packs`.
    """

    def __init__(self, device: KernelDevice) -> None:
        self._device = device
        self._filters: dict[tuple[int, int, int, int], int] = {}

    def filters(self, weight: int, bias: int, outputs: int, inputs: int) -> tuple[int, int]:
        """Return the addresses of filters and biases, which are made once for those of the graph.

        Args:
            weight: The address of (outputs, inputs, 3, 3) bfloat16.
            bias: The address of (outputs,) bfloat16.
            outputs: The number of filters.
            inputs: The number of channels that they read.

        Raises:
            ExecutorError: They are computed anew by the graph each time, or new while a graph is recorded.
        """
        source = (weight, bias, outputs, inputs)
        values = whole_packs(outputs) * SIDE * SIDE * whole_packs(inputs)
        if source not in self._filters:
            if self._device.recording or len(self._filters) == PLACES:
                raise ExecutorError("a convolution's weights are new while a graph is recorded, or no constants")
            self._filters[source] = self._made(source, values)
        return self._filters[source], self._filters[source] + values * BF16_BYTES

    def _made(self, source: tuple[int, int, int, int], values: int) -> int:
        device, (weight, bias, outputs, inputs) = self._device, source
        address = device.keep((values + whole_packs(outputs)) * BF16_BYTES)
        device.launch(
            device.function("filters"),
            -(-values // 256),
            256,
            (
                (weight, POINTER),
                (address, POINTER),
                (outputs, ctypes.c_int),
                (inputs, ctypes.c_int),
                (SIDE * SIDE, ctypes.c_int),
                (values, ctypes.c_longlong),
                (whole_packs(inputs), ctypes.c_int),
            ),
        )
        copy_channels(device, bias, address + values * BF16_BYTES, 1, outputs, whole_packs(outputs))
        return address

    def close(self) -> None:
        """Free them. The node must not run any more."""
        for address in self._filters.values():
            self._device.give_back(address)
        self._filters.clear()

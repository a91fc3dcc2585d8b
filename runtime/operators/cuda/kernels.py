"""Holds what the operators of one device are computed with."""

from __future__ import annotations

from .convolutions import Convolutions
from .cudnn import Cudnn
from .device import KernelDevice
from .products import Products
from .wide_attention import AnyAttention


class Kernels:
    """Holds a device's libraries, and what they made for it.

    Raises:
        MissingDependencyError: A library is not installed.
    """

    def __init__(self, device: KernelDevice) -> None:
        self.device = device
        self._cudnn = Cudnn(device)
        self.products = Products(device)
        self.convolutions = Convolutions(device, self._cudnn)
        self.attention = AnyAttention(device, self._cudnn, self.products)

    def close(self) -> None:
        """Free what they hold."""
        self.attention.close()
        self.convolutions.close()
        self._cudnn.close()
        self.products.close()
        self.device.close()

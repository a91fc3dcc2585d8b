"""Holds what the operators of one device are computed with."""

from __future__ import annotations

from copy import copy

from ...flow.group import Group
from ...flow.shares import Shares
from .convolutions import Convolutions
from .cudnn import Cudnn
from .device import KernelDevice
from .exchange import Exchange
from .products import Products
from .wide_attention import AnyAttention


class Kernels:
    """Holds a device's libraries, and what they made for it.

    Args:
        device: The device.
        group: The ranks that share the tokens of a request, each with a device; None if there is but this one.

    Raises:
        MissingDependencyError: A library is not installed.
    """

    def __init__(self, device: KernelDevice, group: Group | None = None) -> None:
        self.device = device
        self._cudnn = Cudnn(device)
        self.products = Products(device)
        self.convolutions = Convolutions(device, self._cudnn)
        self.attention = AnyAttention(device, self._cudnn, self.products)
        self.exchange = None if group is None else Exchange(device, group)
        self.lanes = {} if group is None else {name: device.lane(name) for name in "qk"}
        """The lanes of queries and of keys, which ranks compute beside values; none on a device that has all tokens."""
        for lane in self.lanes.values():
            self.products.reserve(lane.stream)

    @property
    def shares(self) -> Shares | None:
        """The tokens that each rank holds; None if tokens are not shared, or nobody has said how."""
        return None if self.exchange is None else self.exchange.group.shares

    def alone(self) -> Kernels:
        """Return the same for components that hold all tokens on each rank. They are freed with these."""
        kernels = copy(self)
        kernels.exchange, kernels.lanes = None, {}
        return kernels

    def shrink(self) -> None:
        """Free what any kernel takes anew when it needs it. No graph of before may be launched."""
        self.device.free_scratch()
        self.attention.forget()

    def close(self) -> None:
        """Free what they hold."""
        self.attention.close()
        self.convolutions.close()
        self._cudnn.close()
        self.products.close()
        self.device.close()

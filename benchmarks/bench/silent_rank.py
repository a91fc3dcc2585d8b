"""Runs a rank whose recorded steps exchange nothing, to tell what the exchange costs: their pictures say nothing.

What is not recorded exchanges as ever, so that memory holds numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...runtime.executors import rank_process
from ...runtime.executors.rank_children import rank_command
from ...runtime.flow.group import Group, Piece
from ...runtime.flow.shares import Shares
from ...runtime.operators.cuda.device import KernelDevice


def command() -> tuple[str, ...]:
    """Return the command that starts such a rank."""
    return rank_command(__name__)


class Silent:
    """Implements `Group` by another, but for what would be recorded."""

    def __init__(self, group: Group, device: KernelDevice) -> None:
        self._group, self._device = group, device
        self.rank, self.size = group.rank, group.size

    @property
    def shares(self) -> Shares | None:
        return self._group.shares

    @shares.setter
    def shares(self, shares: Shares | None) -> None:
        self._group.shares = shares

    def swap(self, sends: Sequence[Piece], receives: Sequence[Piece], stream: int = 0) -> None:
        if self._device.recording:
            sends, receives = ([one for one in pieces if one.rank == self.rank] for pieces in (sends, receives))
        self._group.swap(sends, receives, stream)

    def average(self, address: int, count: int, stream: int = 0) -> None:
        if not self._device.recording:
            self._group.average(address, count, stream)

    def close(self) -> None:
        self._group.close()


def main() -> None:
    """Run a rank as its own process does, but silent around attention."""
    from ...runtime.operators.cuda import kernels
    from ...runtime.operators.cuda.exchange import Exchange

    class SilentExchange(Exchange):
        def __init__(self, device: KernelDevice, group: Group) -> None:
            super().__init__(device, Silent(group, device))

    kernels.Exchange = SilentExchange
    rank_process.main()

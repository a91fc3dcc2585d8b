"""Predicts how long a step takes on more devices than were measured.

A step is work that divides by the devices, work that each does whole, and the exchange of heads that nothing hides. The
first two follow from one device and from several whose exchange was left out; the third is the bytes that a device
sends, at the rate that was measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Holds what was measured of a step, in milliseconds.

    Attributes:
        one: On one device.
        several: On `devices` of them.
        silent: On as many, without the exchange.
        devices: How many.
    """

    one: float
    several: float
    silent: float
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Holds a step's parts in milliseconds: `divided` by the devices, `whole` on each, `exchange` of two devices."""

    divided: float
    whole: float
    exchange: float

    def step(self, devices: int) -> float:
        """Return the milliseconds of a step on so many devices; a prediction but for those that were measured."""
        if devices == 1:
            return self.divided + self.whole
        return self.divided / devices + self.whole + self.exchange * sent_share(devices) / sent_share(2)


def scaling_of(measured: Measured) -> Scaling:
    """Return a step's parts from what was measured of it."""
    n = measured.devices
    divided = (measured.one - measured.silent) * n / (n - 1)
    exchange = (measured.several - measured.silent) * sent_share(2) / sent_share(n)
    return Scaling(divided=divided, whole=measured.one - divided, exchange=exchange)


def sent_share(devices: int) -> float:
    """Return the share of a block's exchanged tensors that one device sends: of its tokens, what is not its own."""
    return (devices - 1) / devices**2

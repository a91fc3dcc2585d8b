"""Predicts what the exchange costs on more devices than were measured, by the bytes that each sends."""

from __future__ import annotations


def exchange_on(devices: int, milliseconds: float, measured: int) -> float:
    """Return the milliseconds of a step's exchange on so many devices, from those on the number that was measured."""
    return milliseconds * sent_share(devices) / sent_share(measured)


def sent_share(devices: int) -> float:
    """Return the share of a block's exchanged tensors that one device sends: of its tokens, what is not its own."""
    return (devices - 1) / devices**2

"""Predicts what the exchange costs on more devices than were measured, by the bytes that each sends."""

from __future__ import annotations

from collections.abc import Mapping


def exchange_on(devices: int, milliseconds: float, measured: int) -> float:
    """Return the milliseconds of a step's exchange on so many devices, from those on the number that was measured."""
    return milliseconds * sent_share(devices) / sent_share(measured)


def predicted_ms(part: Mapping[str, float], exchange: float, steps: int) -> dict[str, float]:
    """Return the milliseconds of a step and of a request, from those of a device's part and of a step's exchange."""
    return {"step": part["step"] + exchange, "total": part["total"] + steps * exchange}


def sent_share(devices: int) -> float:
    """Return the share of a block's exchanged tensors that one device sends: of its tokens, what is not its own."""
    return (devices - 1) / devices**2

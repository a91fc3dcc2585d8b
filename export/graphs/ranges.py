"""Finds the calibrated range of an activation."""

from __future__ import annotations

from collections.abc import Mapping

from ...engine.errors import QuantizationError


def range_of(ranges: Mapping[str, float], name: str) -> float:
    """Return the largest magnitude that a calibration saw at a name.

    Raises:
        QuantizationError: It saw none, or nothing but zeros.
    """
    if name not in ranges:
        raise QuantizationError(
            f"the calibration has no range for {name}; calibrate this model with this recipe, or --keep {name}"
        )
    if not ranges[name] > 0:
        raise QuantizationError(
            f"the calibration saw nothing but zeros at {name}, so it has no scale; calibrate on other pictures, "
            f"or --keep {name}"
        )
    return ranges[name]

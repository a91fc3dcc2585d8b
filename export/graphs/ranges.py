"""Finds the calibrated range of an activation."""

from __future__ import annotations

from collections.abc import Mapping

from ...engine.errors import QuantizationError

HADAMARD = "hadamard_"
"""The beginning of the names of queries and keys that were multiplied by Hadamard's matrix."""

ATTENTION_OPERANDS = ("q", "k", "v", f"{HADAMARD}q", f"{HADAMARD}k")
"""The operands of an attention that calibrations see, by the ends of their names."""


def fused_name(attention: str, part: str) -> str:
    """Return by what name calibrations have an operand of a fused attention: "q", "k" or "v" of `NAME.attend`.

    Fused operators round queries and keys after Hadamard's matrix, and keys smoothed.
    """
    return f"{attention}.{part}" if part == "v" else f"{attention}.{HADAMARD}{part}"


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

"""Finds the calibrated range of an activation."""

from __future__ import annotations

from collections.abc import Mapping

from ...engine.errors import QuantizationError

HADAMARD = "hadamard_"
"""The beginning of the names of queries and keys that were multiplied by Hadamard's matrix."""

ATTENTION_OPERANDS = ("q", "k", "v", f"{HADAMARD}q", f"{HADAMARD}k")
"""The operands of an attention that calibrations see, by the ends of their names.

Queries and keys are rounded after Hadamard's matrix alone; beside them, those of before it tell what it does to them.
"""


def operand_name(attention: str, part: str) -> str:
    """Return by what name calibrations have what is rounded of an attention: "q", "k" or "v" of `NAME.attend`.

    Queries and keys are rounded after Hadamard's matrix, and keys smoothed.
    """
    return f"{attention}.{part}" if part == "v" else f"{attention}.{HADAMARD}{part}"


def range_of(ranges: Mapping[str, float], name: str) -> float:
    """Return the largest magnitude that a calibration saw at a name.

    Raises:
        QuantizationError: It saw none, or nothing but zeros.
    """
    layer, is_attention, operand = name.partition(".attend.")
    keep = f"--keep {layer}" + (", which keeps the layers beside it, too" if is_attention else "")
    if name not in ranges:
        older = ", as one of an earlier version may be" if operand.startswith(HADAMARD) else ""
        raise QuantizationError(
            f"the calibration has no range for {name}{older}; calibrate this model with this recipe, or {keep}"
        )
    if not ranges[name] > 0:
        raise QuantizationError(
            f"the calibration saw nothing but zeros at {name}, so it has no scale; calibrate on other pictures, "
            f"or {keep}"
        )
    return ranges[name]

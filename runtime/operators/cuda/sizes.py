"""Names the sizes that kernels and those who launch them share."""

from __future__ import annotations

BF16_BYTES, FLOAT32_BYTES = 2, 4
PACK = 8
"""The values that a thread loads at once, and whose bytes a row of cuBLASLt's fastest kernels is a multiple of."""


def whole_packs(values: int) -> int:
    """Return a number of values, made a multiple of PACK: tensor cores have kernels for such channels and rows."""
    return -(-values // PACK) * PACK


def aligned(size: int) -> int:
    """Return a number of bytes after which memory for anything may begin."""
    return -(-size // 256) * 256

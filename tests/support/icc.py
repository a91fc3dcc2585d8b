"""A colour profile of three primaries and a gamma, as cameras and editors write it into pictures.

Source of the format: ICC.1:2001-04, matrix-based profiles.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
"""Adobe RGB (1998) to XYZ, adapted to D50; columns are the primaries."""
ADOBE_GAMMA = 563 / 256
_D50 = (0.9642, 1.0, 0.8249)
_SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""sRGB to XYZ, adapted to D50."""


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(matrix: NDArray[np.float64], gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    name = b"test\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {
        b"desc": described, b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(_D50),
        b"rXYZ": _xyz(matrix[:, 0]), b"gXYZ": _xyz(matrix[:, 1]), b"bXYZ": _xyz(matrix[:, 2]),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(struct.pack(">i", round(value * 65536)) for value in _D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def in_srgb(values: NDArray[np.uint8], matrix: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    """What (..., 3) uint8 in a profile's colours are in sRGB, in 255ths; what sRGB lacks is cut off."""
    linear = (values / 255) ** gamma @ matrix.T @ np.linalg.inv(_SRGB).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)

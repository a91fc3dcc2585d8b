"""Draws block capitals, 5 dots wide and 7 high."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROWS = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "C": "01111 10000 10000 10000 10000 10000 01111",
    "D": "11110 10001 10001 10001 10001 10001 11110",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "F": "11111 10000 10000 11110 10000 10000 10000",
    "G": "01111 10000 10000 10011 10001 10001 01111",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "I": "11111 00100 00100 00100 00100 00100 11111",
    "J": "00111 00010 00010 00010 00010 10010 01100",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "M": "10001 11011 10101 10101 10001 10001 10001",
    "N": "10001 11001 10101 10101 10011 10001 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "Q": "01110 10001 10001 10001 10101 10010 01101",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "U": "10001 10001 10001 10001 10001 10001 01110",
    "V": "10001 10001 10001 10001 10001 01010 00100",
    "W": "10001 10001 10001 10101 10101 11011 10001",
    "X": "10001 01010 00100 00100 00100 01010 10001",
    "Y": "10001 01010 00100 00100 00100 00100 00100",
    "Z": "11111 00001 00010 00100 01000 10000 11111",
}
ALPHABET = "".join(_ROWS)


@lru_cache(maxsize=64)
def _letter(letter: str) -> NDArray[np.floating]:
    """Return (7, 6) of 0 and 1: a letter and the gap after it."""
    dots = [[float(dot) for dot in row] + [0.0] for row in _ROWS[letter].split()]
    return np.array(dots, np.float32)


def word_coverage(word: str, scale: int) -> NDArray[np.floating]:
    """Return the ink of a word of capitals, its edges half a pixel soft.

    The result is (7 scale, (6 len(word) - 1) scale) float32 in 0..1.
    """
    dots = np.concatenate([_letter(letter) for letter in word], axis=1)[:, :-1]
    ink = np.pad(np.repeat(np.repeat(dots, scale, axis=0), scale, axis=1), 1)
    ink = (ink[:-2] + 2 * ink[1:-1] + ink[2:]) / 4
    return (ink[:, :-2] + 2 * ink[:, 1:-1] + ink[:, 2:]) / 4

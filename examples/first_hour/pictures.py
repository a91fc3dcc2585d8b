"""Looks whether a picture that a command made is the right one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ...benchmarks.quality.editbench.scoring import decibels
from .steps import Check

SAME_DB = 35.0
"""The least PSNR of two pictures that are taken for the same: what 16 bits and other kernels cost is less."""
OTHER_DB = 25.0
"""The most PSNR of two pictures that are taken for different ones."""


def read(path: Path) -> np.ndarray:
    """Return a picture's pixels, (h, w, 3) uint8."""
    assert path.is_file(), f"there is no picture {path.name}"
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the PSNR of two pictures in dB."""
    assert one.shape == other.shape, f"one has {one.shape}, the other {other.shape}"
    return decibels(float(np.square(one.astype(np.float32) - other).mean()))


def same(made: str, expected: str) -> Check:
    """Return a check that two pictures are the same but for rounding; `expected` may lie anywhere in the folder."""

    def check(folder: Path) -> None:
        found = likeness(read(folder / made), read(folder / expected))
        assert found >= SAME_DB, f"{made} has {found:.1f} dB of {expected}, and {SAME_DB:.0f} are the same picture"

    return check


def other(made: str, than: str) -> Check:
    """Return a check that two pictures differ."""

    def check(folder: Path) -> None:
        found = likeness(read(folder / made), read(folder / than))
        assert found <= OTHER_DB, f"{made} is {than} nearly, with {found:.1f} dB"

    return check


def coloured(made: str, centre: tuple[int, int, int], corner: tuple[int, int, int]) -> Check:
    """Return a check of the colours in a picture's centre and in its corner, each within 60 of 255."""

    def check(folder: Path) -> None:
        pixels = read(folder / made).astype(int)
        height, width, _ = pixels.shape
        for name, wanted, found in (
            ("centre", centre, pixels[height // 2, width // 2]),
            ("corner", corner, pixels[height // 16, width // 16]),
        ):
            assert np.abs(found - wanted).max() <= 60, f"{made}: the {name} is {found.tolist()}, not {list(wanted)}"

    return check


def lies_there(name: str) -> Check:
    """Return a check that a file or folder is there."""

    def check(folder: Path) -> None:
        assert (folder / name).exists(), f"there is no {name}"

    return check


def is_not_there(name: str) -> Check:
    """Return a check that a refusal left nothing behind."""

    def check(folder: Path) -> None:
        assert not (folder / name).exists(), f"{name} was left behind"

    return check

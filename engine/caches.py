"""Caches that belong to a bundle: one file per device and version, shared by every process that works on the bundle."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .files import atomic_file
from .locks import exclusive
from .targets import Target

TIMING = "caches/timing"
"""TensorRT's: how fast each kernel was on a device, so that later builds need not measure it again."""
RUNTIME = "caches/runtime"
"""TensorRT-RTX's: kernels that it finished at first run, so that later runs start at once."""


def cache_path(bundle: Path, folder: str, target: Target) -> Path:
    """Where a bundle keeps a target's cache: "nvidia-h200-sm_90-tensorrt-11.4.0.106.cache"."""
    words = " ".join(word for word in (target.gpu, target.capability, target.flavour, target.version) if word)
    return bundle / folder / (re.sub(r"[^\w.]+", "-", words.lower()).strip("-") + ".cache")


def read_cache(path: Path) -> bytes:
    """Empty if there is none yet."""
    return path.read_bytes() if path.is_file() else b""


def update_cache(path: Path, merge: Callable[[bytes], bytes]) -> None:
    """Replace a cache by what `merge` makes of its present bytes; nobody else changes it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_suffix(".lock")), atomic_file(path) as file:
        file.write(merge(read_cache(path)))

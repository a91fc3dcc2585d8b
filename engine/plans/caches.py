"""Says where a bundle keeps caches.

There is one file per device and library version, shared by every process that works on it.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..bundle.shared_file import SharedFile
from .targets import Target

TIMING = "caches/timing"
"""The folder of TensorRT's caches.

They say how fast each kernel was on a device, so that later builds need not measure it again.
"""
RUNTIME = "caches/runtime"
"""The folder of TensorRT-RTX's caches.

They hold kernels that it finished at first run, so that later runs start at once.
"""


def cache_file(bundle: Path, folder: str, target: Target) -> SharedFile:
    """Return a target's cache in a bundle: "nvidia-h200-sm_90-tensorrt-11.4.0.106.cache"."""
    words = " ".join(word for word in (target.gpu, target.capability, target.flavour, target.version) if word)
    name = re.sub(r"[^\w.]+", "-", words.lower()).strip("-") + ".cache"
    return SharedFile(bundle=bundle, place=f"{folder}/{name}")

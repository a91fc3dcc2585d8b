"""Gives TensorRT's timing cache to a build, and keeps what the build measured."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..system.shared_file import read_shared, update_shared

logger = logging.getLogger(__name__)


def attach_timings(config: Any, path: Path) -> Any:
    """Give what is stored to a build's config; return the cache, which must live until the build ends."""
    cache = config.create_timing_cache(read_shared(path))
    if not config.set_timing_cache(cache, False):
        logger.warning("%s does not fit this device; kernels are timed anew", path.name)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def merge_timings(config: Any, path: Path) -> None:
    """Add what a finished build measured to what other builds have stored meanwhile."""

    def merge(stored: bytes) -> bytes:
        measured = config.get_timing_cache()
        if stored and not measured.combine(config.create_timing_cache(stored), False):
            logger.warning("%s is of another device or version and is replaced", path.name)
        return bytes(memoryview(measured.serialize()))

    update_shared(path, merge)

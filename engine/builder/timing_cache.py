"""Gives TensorRT's timing cache to a build, and keeps what the build measured."""

from __future__ import annotations

import logging
from typing import Any

from ..bundle.shared_file import SharedFile

logger = logging.getLogger(__name__)


def attach_timings(config: Any, stored: SharedFile) -> Any:
    """Give what is stored to a build's config; return the cache, which must live until the build ends."""
    cache = config.create_timing_cache(stored.read())
    if not config.set_timing_cache(cache, False):
        logger.warning("%s does not fit this device; kernels are timed anew", stored.path.name)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def merge_timings(config: Any, stored: SharedFile) -> None:
    """Add what a finished build measured to what other builds have stored meanwhile."""

    def merge(present: bytes) -> bytes:
        measured = config.get_timing_cache()
        if present and measured is not None and not measured.combine(config.create_timing_cache(present), False):
            logger.warning("%s is of another device or version and is replaced", stored.path.name)
        serialized = measured.serialize() if measured is not None else None
        if serialized is None:
            logger.warning("the library gave no timings; %s stays as it is", stored.path.name)
            return present
        return bytes(memoryview(serialized))

    stored.update(merge)

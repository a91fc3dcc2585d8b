"""Passes what TensorRT says while it runs to logging, and keeps it for the errors that we raise."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...engine.errors import ExecutorError, GpuMemoryError, KontextError

logger = logging.getLogger("kontext_trt.tensorrt")

_NO_MEMORY = re.compile(r"out ?of ?memory|MemoryAllocation|cudaMalloc|allocat\w* .*failed", re.IGNORECASE)


class LibraryLog:
    """Keeps the errors since `clear`: TensorRT answers False or None, and says why in its log only."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    def clear(self) -> None:
        self._errors.clear()

    def say(self, level: int, message: str) -> None:
        """Log a message of TensorRT's, and keep it if it is an error.

        An error is raised by whoever asked, so it is logged for debugging only, and not printed a second time.
        """
        if level >= logging.ERROR:
            self._errors.append(message)
            level = logging.DEBUG
        logger.log(level, "%s", message)

    def errors(self) -> tuple[str, ...]:
        """Return the errors since `clear`."""
        return tuple(self._errors)

    @contextmanager
    def named(self, component: str) -> Iterator[None]:
        """Give what the bindings themselves raise a type and the component's name."""
        try:
            yield
        except KontextError:
            raise
        except Exception as error:
            raise self.error(f"{component}: TensorRT raised {error}", ExecutorError) from error

    def error(self, what: str, kind: type[ExecutorError] | type[Exception]) -> Exception:
        """Return what to raise for a False or None: GpuMemoryError if the log speaks of memory, else `kind`."""
        words = "; ".join(self._errors) or "it did not say why"
        if _NO_MEMORY.search(words):
            return GpuMemoryError(f"{what}, for want of GPU memory: {words}")
        return kind(f"{what}: {words}")


def as_memory_error(words: str) -> ExecutorError:
    """Return an error with these words: GpuMemoryError if the library's own speak of memory."""
    return (GpuMemoryError if _NO_MEMORY.search(words) else ExecutorError)(words)


def make_logger(trt: Any, log: LibraryLog) -> Any:
    """Make the library's logger object; its base class is the library's."""
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.INFO,
        trt.ILogger.INFO: logging.DEBUG,
    }

    class RuntimeLog(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in levels:
                log.say(levels[severity], message)

    return RuntimeLog()

"""Defines what the compiler calls while it builds: a log, a progress monitor, a writer for the plan.

Their base classes are the library's, so each is made in a function that is given the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from ..plans.layers import UNTOLD
from ..system.chunked_hash import ChunkedHash

COMPILING_SHARE = 0.6
"""The share of a build's time that compiling takes.

The rest goes into writing the plan (full-width blocks on two cores).
"""

LISTING = ", LayerType: "
"""The text that a layer's line in the log has."""

OnFraction = Callable[[float], None]
"""The type of what is told what part of the build is done, 0 to 1."""


def make_logger(trt: Any, log: Any) -> Any:
    """Make the logger of a library, which writes to the open file `log`."""

    class BuildLog(trt.ILogger):
        """Writes everything to the log file, and remembers errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.tells_layers = False
            self.leaves_types_untold = False

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            self.tells_layers |= LISTING in message
            self.leaves_types_untold |= UNTOLD in message
            log.write(f"{message}\n")

    return BuildLog()


class BuildProgress:
    """Makes one fraction, which only grows, out of the compiler's phases and of what is written.

    The compiler writes when it has compiled, though its last phases end later; a plan is about as large as its weights.
    """

    def __init__(self, weight_bytes: int, on_fraction: OnFraction) -> None:
        self._weight_bytes, self._on_fraction, self._done = max(weight_bytes, 1), on_fraction, 0.0

    def compiled(self, fraction: float) -> None:
        self._reach(COMPILING_SHARE * fraction)

    def written(self, size_bytes: int) -> None:
        self._reach(COMPILING_SHARE + (1 - COMPILING_SHARE) * min(size_bytes / self._weight_bytes, 1.0))

    def _reach(self, fraction: float) -> None:
        if fraction > self._done:
            self._done = fraction
            self._on_fraction(fraction)


def make_writer(base: Any, file: BinaryIO, progress: BuildProgress) -> Any:
    """Make the writer, of a library's class `base`, through which a plan is written to `file`."""

    class PlanWriter(base):
        """Takes the plan as it is serialized. A short return makes the compiler stop."""

        def __init__(self) -> None:
            base.__init__(self)
            self.digest = ChunkedHash()
            self.error: OSError | None = None

        def write(self, data: bytes | memoryview) -> int:
            try:
                file.write(data)
            except OSError as error:  # a full disk; an exception must not cross into the compiler
                self.error = error
                return 0
            self.digest.update(data)
            progress.written(self.digest.size_bytes)
            return len(data)

    return PlanWriter()


def make_monitor(trt: Any, progress: BuildProgress) -> Any:
    """Make the progress monitor of a library."""

    class Monitor(trt.IProgressMonitor):
        """Turns nested phases of so many steps each into one fraction."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[int]] = {}  # in the order in which they nest: name -> [done, of]

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = [0, max(num_steps, 1)]

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name][0] = step + 1
            progress.compiled(self.fraction())
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def fraction(self) -> float:
            done, share = 0.0, 1.0
            for finished, total in self.phases.values():
                done += share * min(finished / total, 1.0)
                share /= total
            return min(done, 1.0)

    return Monitor()

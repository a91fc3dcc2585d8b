"""What can go wrong, as types. Messages say what was asked, what was found, what is allowed and what to do."""

from __future__ import annotations


class KontextError(Exception):
    """Every error of this package that is not a bad argument."""


class CheckpointError(KontextError):
    """A checkpoint that is incomplete, damaged, or not a FLUX.1 Kontext checkpoint."""


class ExportError(KontextError):
    """A graph that could not be made from a good checkpoint."""


class BundleError(KontextError):
    """A bundle that is missing, altered, incomplete, or of another version."""


class ExecutorError(KontextError):
    """A component that could not be loaded or run."""


class ImageError(KontextError):
    """A picture that cannot be read or used."""


class GpuMemoryError(ExecutorError):
    """GPU memory that could not be had."""


class BudgetError(ExecutorError):
    """A budget of GPU memory that is too small for a bundle."""


class BusyError(KontextError):
    """A session that is serving another thread, and was opened to refuse rather than to wait."""


class RequestError(KontextError, ValueError):
    """An argument of a request that is out of range."""


class NotFiniteError(ExecutorError):
    """A component that returned NaN or infinity."""


class Cancelled(KontextError):
    """A request that was cancelled between two steps."""


class MissingDependencyError(KontextError, ImportError):
    """A package that an optional part needs; the message holds the command that installs it."""


class TargetError(KontextError):
    """A GPU that cannot be built for, or cannot compute what a graph asks for."""


class BuildError(KontextError):
    """A plan that could not be built."""


class PlanError(KontextError):
    """A plan that must not be opened: missing, altered, foreign, or made for another machine."""


class UntrustedPlanError(PlanError):
    """A plan that somebody else may have written."""


class QuantizationError(KontextError):
    """A recipe, calibration or quantized graph that cannot be made or used."""

"""What can go wrong, as types. Messages say what was asked, what was found, what is allowed and what to do.

KontextError
  + CheckpointError         a checkpoint cannot be used
  + ExportError             a graph cannot be made
  + QuantizationError       a graph cannot be quantized
  + BundleError             a bundle cannot be opened
  + OptionError             an option is out of range (also a ValueError)
  + TargetError             a GPU cannot be built for
  + BuildError              a plan cannot be built
  + PlanError               a plan must not be opened
  |   + UntrustedPlanError
  + ExecutorError           a component cannot be loaded or run
  |   + GpuMemoryError
  |   + BudgetError
  |   + NotFiniteError
  + RequestError            a request is out of range (also a ValueError)
  + ImageError              a picture cannot be read or used
  + BusyError               a session serves another thread
  + Cancelled               a request was cancelled
  + MissingDependencyError  a package is not installed (also an ImportError)
"""

from __future__ import annotations


class KontextError(Exception):
    """The base of every error that this package raises on purpose."""


class CheckpointError(KontextError):
    """A checkpoint is incomplete, damaged, or not a FLUX.1 Kontext checkpoint."""


class ExportError(KontextError):
    """A graph could not be made from a good checkpoint, or the bundle's place is taken."""


class QuantizationError(KontextError):
    """A recipe, a calibration or a quantized graph cannot be made or used."""


class BundleError(KontextError):
    """A bundle is missing, altered, incomplete, or of another version."""


class OptionError(KontextError, ValueError):
    """An option of a build, an export or the command line is out of range, or does not fit the others."""


class TargetError(KontextError):
    """A GPU cannot be built for, or cannot compute what a graph asks for."""


class BuildError(KontextError):
    """A plan could not be built."""


class PlanError(KontextError):
    """A plan must not be opened: it is missing, altered, foreign, or made for another machine."""


class UntrustedPlanError(PlanError):
    """A plan may have been written by somebody else, and plans are executable code."""


class ExecutorError(KontextError):
    """A component could not be loaded or run."""


class GpuMemoryError(ExecutorError):
    """The GPU has not enough free memory."""


class BudgetError(ExecutorError):
    """A budget of GPU memory is too small for a bundle."""


class NotFiniteError(ExecutorError):
    """A component returned NaN or infinity."""


class RequestError(KontextError, ValueError):
    """An argument of a request is out of range, or the plans do not cover the request."""


class ImageError(KontextError):
    """A picture cannot be read or used."""


class BusyError(KontextError):
    """A session is serving another thread, and was opened to refuse rather than to wait."""


class Cancelled(KontextError):
    """A request was cancelled between two steps."""


class MissingDependencyError(KontextError, ImportError):
    """A package that an optional part needs is not installed; the message holds the command that installs it."""

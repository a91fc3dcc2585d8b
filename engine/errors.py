"""Defines what can go wrong, as types. Messages say what was asked, what was found, what is allowed and what to do.

KontextError
  + CheckpointError         a checkpoint cannot be used
  |   + LoraError           a LoRA file cannot be used
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
  + ContentRefused          a filter refused a prompt or a picture
  + ProvenanceError         a picture cannot be signed
  + BenchmarkError          a benchmark's folder, results or judge cannot be used
  + BusyError               a Kontext serves another thread
  + Cancelled               a request was cancelled
  + MissingDependencyError  a package is not installed (also an ImportError)
"""

from __future__ import annotations


class KontextError(Exception):
    """Reports that something went wrong; it is the base of every error that this package raises on purpose."""


class CheckpointError(KontextError):
    """Reports a checkpoint that is incomplete, damaged, or not of FLUX.1 Kontext."""


class LoraError(CheckpointError):
    """Reports a LoRA file that is damaged, of another model, or changes what cannot be changed."""


class ExportError(KontextError):
    """Reports that a graph could not be made from a good checkpoint, or that the bundle's place is taken."""


class QuantizationError(KontextError):
    """Reports a recipe, a calibration or a quantized graph that cannot be made or used."""


class BundleError(KontextError):
    """Reports a bundle that is missing, altered, incomplete, or of another version."""


class OptionError(KontextError, ValueError):
    """Reports an option of a build, an export or the command line that is out of range or does not fit the others.

    It is a ValueError, too.
    """


class TargetError(KontextError):
    """Reports a GPU that cannot be built for, or cannot compute what a graph asks for."""


class BuildError(KontextError):
    """Reports a plan that could not be built, or whose engine is not as it was asked for."""


class PlanError(KontextError):
    """Reports a plan that must not be opened: it is missing, altered, foreign, or made for another machine."""


class UntrustedPlanError(PlanError):
    """Reports a plan that may have been written by somebody else; plans are executable code."""


class ExecutorError(KontextError):
    """Reports a component that could not be loaded or run."""


class GpuMemoryError(ExecutorError):
    """Reports that the GPU has not enough free memory."""


class BudgetError(ExecutorError):
    """Reports a budget of GPU memory that is too small for a bundle."""


class NotFiniteError(ExecutorError):
    """Reports a component that returned NaN or infinity."""


class RequestError(KontextError, ValueError):
    """Reports an argument of a request that is out of range, or a request that the plans do not cover.

    It is a ValueError, too.
    """


class ImageError(KontextError):
    """Reports a picture that cannot be read or used."""


class ContentRefused(KontextError):
    """Reports that a content filter refused a prompt or a picture, or failed, which refuses, too.

    Args:
        message: The filter, the stage and the filter's reason; nothing of the content.
        filter: The filter's name.
        stage: What was refused: "prompt", "input picture" or "output picture".
        failed: Whether the filter failed.
    """

    def __init__(self, message: str, filter: str = "", stage: str = "", failed: bool = False) -> None:
        super().__init__(message)
        self.filter, self.stage, self.failed = filter, stage, failed


class ProvenanceError(KontextError):
    """Reports a picture that cannot be signed as asked, or credentials of a picture that cannot be used or read."""


class BenchmarkError(KontextError):
    """Reports a benchmark, or a folder of results, or a judge of them, that cannot be used."""


class BusyError(KontextError):
    """Reports a Kontext that is serving another thread, and was opened to refuse rather than to wait."""


class Cancelled(KontextError):
    """Reports a request that was cancelled between two steps."""


class MissingDependencyError(KontextError, ImportError):
    """Reports that a package that an optional part needs is not installed.

    The message holds the command that installs it. It is an ImportError, too.
    """

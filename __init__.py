"""kontext-trt: FLUX.1 Kontext [dev] on NVIDIA GPUs, from a checkpoint to an edited picture.

from kontext_trt import Kontext

with Kontext.open("bundle") as kontext:
    kontext.edit("cat.png", "make the cat orange", seed=0).save("orange-cat.png")
"""

__version__ = "0.1.0"

from .engine.bundle import Bundle
from .engine.errors import (
    BudgetError,
    BuildError,
    BundleError,
    BusyError,
    Cancelled,
    CheckpointError,
    ExecutorError,
    ExportError,
    GpuMemoryError,
    ImageError,
    KontextError,
    MissingDependencyError,
    NotFiniteError,
    PlanError,
    QuantizationError,
    RequestError,
    TargetError,
    UntrustedPlanError,
)
from .runtime.kontext import Kontext
from .runtime.options import AnyExecutor, Device, OnnxRuntimeOptions, TensorRtOptions, WhenBusy
from .runtime.prompts import PromptCutWarning
from .runtime.result import Output, Result
from .runtime.sizes import Fit, Placement

__all__ = [
    "AnyExecutor",
    "Kontext",
    "Bundle",
    "Device",
    "Fit",
    "OnnxRuntimeOptions",
    "Output",
    "Placement",
    "Result",
    "TensorRtOptions",
    "WhenBusy",
    "PromptCutWarning",
    "KontextError",
    "BudgetError",
    "BuildError",
    "BundleError",
    "BusyError",
    "Cancelled",
    "CheckpointError",
    "ExecutorError",
    "ExportError",
    "GpuMemoryError",
    "ImageError",
    "MissingDependencyError",
    "NotFiniteError",
    "PlanError",
    "QuantizationError",
    "RequestError",
    "TargetError",
    "UntrustedPlanError",
]

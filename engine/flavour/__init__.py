"""Hides how TensorRT and TensorRT-RTX differ: this folder is the only place that knows.

Neither is imported before `load_flavour` is called. Everything else works with `Flavour` and with `Flavour.trt`, whose
names outside this folder exist in both.
"""

from __future__ import annotations

import importlib.util

from ..errors import MissingDependencyError
from ..spelling import Spelled
from .interface import ContextMaker, Flavour

__all__ = ["ContextMaker", "Flavour", "FlavourName", "installed_flavours", "load_flavour"]


class FlavourName(Spelled):
    """Names the libraries.

    TENSORRT builds on the GPU that it is for. TENSORRT_RTX builds ahead of time, for GPUs that need not be there.
    """

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt_rtx"

    @property
    def extra(self) -> str:
        return "rtx" if self is FlavourName.TENSORRT_RTX else "tensorrt"


def installed_flavours() -> tuple[FlavourName, ...]:
    """Return which packages are installed, without importing them."""
    return tuple(name for name in FlavourName if importlib.util.find_spec(name.value) is not None)


def load_flavour(name: FlavourName) -> Flavour:
    """Import the library; raise MissingDependencyError with the command that installs it."""
    try:
        if name is FlavourName.TENSORRT_RTX:
            from .tensorrt_rtx import TensorRtRtx

            return TensorRtRtx()
        from .tensorrt import TensorRt

        return TensorRt()
    except ImportError as error:
        raise MissingDependencyError(
            f"{name.value} is not installed ({error}); install it with: pip install 'kontext-trt[{name.extra}]'"
        ) from error

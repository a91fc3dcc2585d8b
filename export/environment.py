"""Checks what exporting needs installed, and keeps its libraries off the screen."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from importlib.util import find_spec

from ..engine.system.packages import require

EXPORT_PACKAGES: Mapping[str, str] = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "huggingface_hub": "huggingface-hub",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "onnxscript": "onnxscript",
    "safetensors": "safetensors",
}
"""The modules of the extra `export` that what it is for imports, and the packages that have them."""


def require_export(what: str = "exporting") -> None:
    """Raise MissingDependencyError unless what exporting needs is installed; `what` says what needs it."""
    require(what, EXPORT_PACKAGES, "export")


def require_demo() -> None:
    """Raise MissingDependencyError unless what exports a bundle and what runs it are installed."""
    runs = find_spec("onnxruntime") is not None  # of onnxruntime or onnxruntime-gpu, which are not installed together
    require("the demo", {**EXPORT_PACKAGES, "onnxruntime": "onnxruntime"}, "export" if runs else "export,cpu")


def require_quantize() -> None:
    """Raise MissingDependencyError unless what calibrating and quantizing need is installed."""
    require("quantizing", {**EXPORT_PACKAGES, "modelopt": "nvidia-modelopt"}, "quantize")


def quiet_libraries() -> None:
    """Keep transformers' and diffusers' bars and advice off the screen; their errors still arrive.

    The hub's library, which they import, is asked to tell the hub no more than it has to.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # which is read at that import
    for name in ("transformers", "diffusers"):  # in this order: importing the second makes the first speak
        library = importlib.import_module(name)
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()

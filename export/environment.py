"""Checks what exporting needs installed, and keeps its libraries off the screen."""

from __future__ import annotations

import importlib
import importlib.util

from ..engine.errors import MissingDependencyError


def require_export() -> None:
    """Raise MissingDependencyError unless what exporting needs is installed."""
    needed = ("torch", "diffusers", "transformers", "onnx", "onnx_ir", "onnxscript")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"exporting needs {', '.join(missing)}; install it with: pip install 'kontext-trt[export]'"
        )


def require_quantize() -> None:
    """Raise MissingDependencyError unless what quantizing needs is installed."""
    require_export()
    if importlib.util.find_spec("modelopt") is None:
        raise MissingDependencyError(
            "quantizing needs nvidia-modelopt; install it with: pip install 'kontext-trt[quantize]'"
        )


def quiet_libraries() -> None:
    """Keep transformers' and diffusers' bars and advice off the screen; their errors still arrive."""
    for name in ("transformers", "diffusers"):  # in this order: importing the second makes the first speak
        library = importlib.import_module(name)
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()

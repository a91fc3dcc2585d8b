"""Describes the machine that a benchmark ran on, and the versions of what took part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path

from ...engine.system.gpus import find_gpus
from ...version import __version__
from .nvml import driver_version
from .records import Host

_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "numpy",
    "torch",
    "diffusers",
    "transformers",
    "torchao",
)


def this_machine() -> Host:
    """Return a description of this machine; the first GPU stands for all."""
    gpus, _ = find_gpus()
    return Host(
        date=time.strftime("%Y-%m-%d"),
        gpu=gpus[0].name if gpus else None,
        driver=driver_version(),
        gpu_bytes=gpus[0].memory_bytes if gpus else None,
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        packages={"kontext-trt": __version__} | _versions(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.machine()

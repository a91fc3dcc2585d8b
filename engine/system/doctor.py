"""Finds what this machine can do, what it lacks, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from .gpus import Gpu, find_gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """Describes one thing a user may want to do; a package's version is None where it is missing."""

    name: str
    packages: Mapping[str, str | None]
    usable: bool
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Describes the machine, and everything that a user may want to do on it."""

    python: str
    platform: str
    gpus: tuple[Gpu, ...]
    no_gpu_reason: str
    parts: tuple[PartReport, ...]


# (what, its packages, whether one of them is enough, how many GPUs it needs, command)
_PARTS = (
    ("run on the CPU", ("onnxruntime", "onnxruntime-gpu"), True, 0, "pip install 'kontext-trt[cpu]'"),
    (
        "run on CUDA with ONNX Runtime",
        ("onnxruntime-gpu", "cuda-python"),
        False,
        1,
        "pip install 'kontext-trt[gpu]'",
    ),
    (
        "run fused operators and FP8 on CUDA",
        ("onnxruntime-gpu", "cuda-python", "nvmath-python", "nvidia-cudnn-frontend"),
        False,
        1,
        "pip install 'kontext-trt[fused]'",
    ),
    (
        "share requests among GPUs",
        (
            *("onnxruntime-gpu", "cuda-python", "nvmath-python", "nvidia-cudnn-frontend"),
            *("nccl4py", "nvidia-nccl-cu13"),
        ),
        False,
        2,
        "pip install 'kontext-trt[multi]'",
    ),
    ("run TensorRT plans", ("tensorrt", "cuda-python"), False, 1, "pip install 'kontext-trt[tensorrt]'"),
    ("run TensorRT-RTX plans", ("tensorrt-rtx", "cuda-python"), False, 1, "pip install 'kontext-trt[rtx]'"),
    (
        "build TensorRT plans",
        ("tensorrt", "cuda-python"),
        False,
        1,
        "pip install 'kontext-trt[tensorrt]'",
    ),
    ("build TensorRT-RTX plans", ("tensorrt-rtx",), False, 0, "pip install 'kontext-trt[rtx]'"),
    (
        "export checkpoints",
        ("torch", "diffusers", "transformers", "huggingface-hub", "onnx", "onnx-ir", "onnxscript", "safetensors"),
        False,
        0,
        "pip install 'kontext-trt[export]'",
    ),
    (
        "calibrate and quantize",
        ("torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript", "nvidia-modelopt"),
        False,
        0,
        "pip install 'kontext-trt[quantize]'",
    ),
)


_NEEDED = {1: "an NVIDIA GPU", 2: "two NVIDIA GPUs"}
_OF_ONE_CUDA = {"tensorrt": ("cu12", "cu13"), "tensorrt-rtx": ("cu12", "cu13")}
"""The CUDA versions for which a package can be installed alone, under its name and the version's."""


def diagnose() -> Diagnosis:
    """Look at the installed packages and the driver; nothing heavy is imported."""
    gpus, reason = find_gpus()
    return Diagnosis(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        gpus=gpus,
        no_gpu_reason=reason,
        parts=tuple(
            _part(
                name,
                packages,
                any_of,
                command if len(gpus) >= num_gpus else f"needs {_NEEDED[num_gpus]}, then {command}",
                has_gpus=len(gpus) >= num_gpus,
            )
            for name, packages, any_of, num_gpus, command in _PARTS
        ),
    )


def _part(name: str, packages: tuple[str, ...], any_of: bool, command: str, *, has_gpus: bool) -> PartReport:
    versions = {package: _version(package) for package in packages}
    found = [version is not None for version in versions.values()]
    usable = (any(found) if any_of else all(found)) and has_gpus
    return PartReport(name=name, packages=versions, usable=usable, command=command)


def _version(package: str) -> str | None:
    for name in (package, *(f"{package}-{cuda}" for cuda in _OF_ONE_CUDA.get(package, ()))):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None

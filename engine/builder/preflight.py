"""Compares what a build will take with what the machine has, before hours are spent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle.bundle import Bundle
from ..components import Operators
from ..errors import BuildError
from ..flavour import Flavour
from ..system.gpus import Gpu
from ..system.memory import available_bytes

MEMORY_PER_WEIGHT_BYTE = 2.0
"""The bytes of host memory that a build is taken to need per byte of weights.

It is a little above the anonymous memory that the compiler was seen to hold (benchmarks/costs/build_cost.py).
"""
MEMORY_PER_NVFP4_BYTE = 2.6
"""The bytes of host memory that a build is taken to need per byte of weights, most of them in NVFP4.

It is a little above what the compiler was seen to hold, too: 2.48 for the whole denoiser
(benchmarks/costs/quantized_cost.py).
"""
BASE_MEMORY_BYTES = 1 << 30
PLAN_PER_WEIGHT_BYTE = 1.05
BASE_PLAN_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Holds the bytes that a build needs: host memory, disk, and memory of its GPU (0 ahead of time)."""

    memory: int
    disk: int
    gpu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Holds the bytes that there are. `gpu` is None where the build needs none."""

    memory: int
    disk: int
    gpu: int | None


def check_operators(bundle: Bundle, components: Sequence[str]) -> None:
    """Raise BuildError if a graph has operators that TensorRT does not know, or cannot parse."""
    for name in components:
        record = bundle.graph(name)
        if record.operators == Operators.FUSED.value and record.quantization is not None:
            # TensorRT-RTX 1.7.1 names a quantizer of one call as it named that of another, and gives up
            raise BuildError(
                f"the {name} of {bundle.path} has fused operators in FP8, which TensorRT cannot parse; "
                "quantize a bundle of --operators single for plans"
            )
        if record.operators == Operators.ONNXRUNTIME.value:
            raise BuildError(
                f"the {name} of {bundle.path} has operators of ONNX Runtime's own, which TensorRT does not know; "
                "export the checkpoint again with --operators single, or decomposed for TensorRT before 10.15"
            )


def estimate(weight_bytes: int, flavour: Flavour, workspace_bytes: int | None, *, nvfp4: bool = False) -> Estimate:
    """Estimate what the build of one component needs; `nvfp4` says whether most of its weights are in NVFP4."""
    per_byte = MEMORY_PER_NVFP4_BYTE if nvfp4 else MEMORY_PER_WEIGHT_BYTE
    return Estimate(
        memory=int(BASE_MEMORY_BYTES + per_byte * weight_bytes),
        disk=int(BASE_PLAN_BYTES + PLAN_PER_WEIGHT_BYTE * weight_bytes),
        gpu=0 if flavour.ahead_of_time else weight_bytes + (workspace_bytes or 0),
    )


def together(estimates: Sequence[Estimate]) -> Estimate:
    """Combine what several components need, one after another: plans add up, memory does not."""
    return Estimate(
        memory=max((one.memory for one in estimates), default=0),
        disk=sum(one.disk for one in estimates),
        gpu=max((one.gpu for one in estimates), default=0),
    )


def measure(folder: Path, flavour: Flavour, gpu: Gpu | None) -> Resources:
    """Measure what this machine has now. `folder` is where plans go; it, or a folder above it, exists."""
    while not folder.exists():
        folder = folder.parent
    return Resources(
        memory=available_bytes(),
        disk=shutil.disk_usage(folder).free,
        gpu=None if flavour.ahead_of_time or gpu is None else gpu.memory_bytes,
    )


def lacks(needed: Estimate, there: Resources) -> Iterator[str]:
    """Say in words each resource that will probably not suffice."""
    for what, need, have in (
        ("memory", needed.memory, there.memory),
        ("disk", needed.disk, there.disk),
        ("GPU memory", needed.gpu, there.gpu),
    ):
        if have is not None and need > have:
            yield f"{what}: about {need / 2**30:.1f} GiB needed, {have / 2**30:.1f} GiB free"

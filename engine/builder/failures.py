"""Says what a failed build means in plain words, and what to try next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from ..flavour.start import CANNOT_START
from ..plans.coverage import Coverage
from ..plans.options import BuildOptions


class FailureKind(str, Enum):
    """Names why no plan came out."""

    HOST_MEMORY = "host memory"
    GPU_MEMORY = "GPU memory"
    DISK = "disk"
    OPERATOR = "unsupported operator"
    NUMBER_TYPE = "unsupported type"
    SHAPES = "shape range"
    DRIVER = "no CUDA driver"
    COMPILER = "compiler error"
    SIGNAL = "signal"
    CRASH = "crash"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Says why no plan came out, by kind and in words."""

    kind: FailureKind
    words: str


# the compiler's words -> kind, what they mean. The first that fits counts.
_CAUSES = (
    (r"No space left on device|writing the plan failed", FailureKind.DISK, "the disk is full"),
    (
        r"bad_alloc|std::length_error|Cannot allocate memory|MemoryError",
        FailureKind.HOST_MEMORY,
        "the machine's memory did not suffice",
    ),
    (
        r"out of memory|OutOfMemory|cudaErrorMemoryAllocation|insufficient memory|requested size was \d+",
        FailureKind.GPU_MEMORY,
        "the GPU's memory did not suffice",
    ),
    (
        r"HW-specific datatypes|GEMM is not supported|does not support (?:UINT8|BF16|FP8|FP4)"
        r"|must have same input types|has type \w+ but must have type",
        FailureKind.NUMBER_TYPE,
        "the GPU or the library has no such number type",
    ),
    (
        r"is not a registered function/op|No importer registered|Unsupported operator|Plugin not found"
        r"|not supported by a dedicated kernel",
        FailureKind.OPERATOR,
        "the library has no such operator; export with --operators decomposed for an older library",
    ),
    (
        r"optimization profile|did not accept the shape range|kMIN|min.*dimensions in profile|static dimension",
        FailureKind.SHAPES,
        "the shape range does not fit the graph",
    ),
    (
        r"Could not find any implementation for node",
        FailureKind.GPU_MEMORY,
        "no kernel fitted, which most often means that the workspace or the GPU's memory is too small for the shapes",
    ),
    (
        CANNOT_START,
        FailureKind.DRIVER,
        "the library does not start here",
    ),
    (
        r"CUDA driver version is insufficient|cudaError 35|no CUDA-capable device|CHECK\(status == CUDA_SUCCESS\)",
        FailureKind.DRIVER,
        "this needs an NVIDIA driver and a GPU",
    ),
)


def explain(words: str) -> Failure:
    """Return the compiler's last words, with what they mean where that is known."""
    words = _without_noise(words)
    for pattern, kind, meaning in _CAUSES:
        if re.search(pattern, words, re.IGNORECASE):
            return Failure(kind=kind, words=f"{meaning}. The compiler says: {_shorten(words)}")
    return Failure(kind=FailureKind.COMPILER, words=_shorten(words))


def _without_noise(words: str) -> str:
    """Leave out what TensorRT-RTX adds to any error on a machine without a GPU: that there is none."""
    lines = [line for line in words.splitlines() if "cudaError 35" not in line]
    return "\n".join(lines) or words


def _shorten(words: str, limit: int = 600) -> str:
    text = " ".join(words.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


SMALLEST_WORKSPACE_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """Describes one retry: the options to try, and what changes, in words."""

    words: str
    options: BuildOptions


def ladder(failure: Failure, options: BuildOptions, gpu_bytes: int | None) -> Iterator[Rung]:
    """Yield what may help against a lack of GPU memory, each rung on top of the last; nothing for other failures.

    What a build holds in host memory are the weights and the plan, which no option makes smaller. `gpu_bytes` is the
    GPU's memory where the build runs on one.
    """
    if failure.kind is not FailureKind.GPU_MEMORY:
        return
    if gpu_bytes is not None:
        limit = min(options.workspace_bytes or gpu_bytes, gpu_bytes)
        for workspace in (limit // 4, limit // 16):
            if workspace >= SMALLEST_WORKSPACE_BYTES:
                options = replace(options, workspace_bytes=workspace)
                yield Rung(words=f"workspace of at most {workspace >> 20} MiB", options=options)
    if options.max_aux_streams != 0:
        options = replace(options, max_aux_streams=0)
        yield Rung(words="no auxiliary streams", options=options)
    for level in (2, 1):
        if options.optimization_level is None or options.optimization_level > level:
            options = replace(options, optimization_level=level)
            yield Rung(words=f"optimization level {level}", options=options)


def advice(failure: Failure, coverage: Coverage) -> str:
    """Say what the user can still do after the ladder, as the end of a message ("" if nothing)."""
    if failure.kind is FailureKind.GPU_MEMORY or failure.kind is FailureKind.SHAPES:
        width, height = coverage.common
        return f"; a narrower range needs less: --size {width}x{height}" if len(coverage.sizes) > 1 else ""
    if failure.kind is FailureKind.HOST_MEMORY:
        return "; end other programs, or build on a machine with more memory"
    if failure.kind is FailureKind.DISK:
        return "; free some, or remove old plans with: kontext-trt plans prune BUNDLE"
    if failure.kind is FailureKind.TIMEOUT:
        return "; give it longer, or build with --optimization-level 1"
    return ""

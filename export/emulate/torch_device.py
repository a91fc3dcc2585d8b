"""Names where torch computes, without importing torch."""

from __future__ import annotations

from enum import Enum


class TorchDevice(str, Enum):
    """Names where torch computes; AUTO takes a CUDA device if there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

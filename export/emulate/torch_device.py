"""Where torch computes, known without importing torch."""

from __future__ import annotations

from enum import Enum


class TorchDevice(str, Enum):
    """AUTO takes a CUDA device if there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

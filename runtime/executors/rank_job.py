"""Defines what the process of a rank is told when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .options import OnnxRuntimeOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJob:
    """Says what a rank's process is to do.

    Attributes:
        bundle: The bundle's folder.
        options: Who runs it; `device` is the CPU or CUDA, `device_id` this rank's.
        rank: The number of the rank.
        size: The number of ranks.
        sockets: On the CPU, the descriptors of the sockets to the other ranks, by their numbers.
    """

    bundle: str
    options: OnnxRuntimeOptions
    rank: int
    size: int
    sockets: Mapping[int, int]
